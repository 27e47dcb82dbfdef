"""The parts of a transformer tower: pre-norm blocks of frozen weights, which prompts and low-rank matrices enter.

Parameter names are those of OpenAI's checkpoints (openai/CLIP, clip/model.py). Shape letters: `daptune.clip.model`.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .frozen import FrozenLinear, QuickGELUMLP, linear, linear_gelu
from .rotary import Rotary

T = TypeVar("T")
GATED = "swiglu"
"""The activation of a `GatedMLP`; blocks with it have norms inside (EVA02)."""
GELU = {"gelu": "none", "gelu_tanh": "tanh"}  # torch's names
# Up to this number of keys, attention on a CPU is faster as plain products than in torch's fused kernel: in float32
# with few keys, in bfloat16 by a factor of two to three, where the memory of the scores sets the limit.
PLAIN_ATTENTION_KEYS = {torch.float32: 128, torch.bfloat16: 320}
FUSED_FORWARD = torch.cpu._is_amx_tile_supported()
"""Whether this processor computes it faster in the fused kernel where no backward pass follows (0.4 to 0.9 of the time,
measured on Xeons with AMX; an EPYC is three times slower in bfloat16)."""


class LayerNorm(nn.LayerNorm):
    """Layer norm in float32, as in openai/CLIP; the result is cast to `dtype`."""

    def forward(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return super().forward(x.float()).to(dtype)


class Attention(nn.Module):
    """The frozen projections of multi-head attention, under the parameter names of `nn.MultiheadAttention`.

    `rotary` turns queries and keys by their places, `ln` normalises the joined heads before the output projection;
    None in most towers.
    """

    def __init__(self, width: int, heads: int, rotary: Rotary | None = None, ln: "LayerNorm | None" = None) -> None:
        super().__init__()
        self.heads, self.rotary, self.ln = heads, rotary, ln
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = FrozenLinear(width, width)

    def matrices(self) -> tuple[nn.Parameter, ...]:
        return self.in_proj_weight, self.in_proj_bias

    def project(self, x: Tensor, first: int, last: int) -> Tensor:
        """Parts `first`..`last` of (query, key, value): (.., W) -> (.., (last - first) W)."""
        width = x.shape[-1]
        rows = slice(first * width, last * width)
        return linear(x, self.in_proj_weight, self.in_proj_bias, rows)

    def split(self, projected: Tensor) -> tuple[Tensor, ...]:
        """(.., L, n W) -> n views (.., H, L, W/H)."""
        width = self.out_proj.in_features
        parts = projected.shape[-1] // width
        view = projected.unflatten(-1, (parts, self.heads, width // self.heads))
        return tuple(part.transpose(-3, -2) for part in view.unbind(-3))

    def placed(self, part: Tensor) -> Tensor:
        """Queries or keys (.., H, L, W/H) that know their places."""
        return part if self.rotary is None else self.rotary(part)

    def joined(self, attended: Tensor) -> Tensor:
        """The heads (.., H, L, W/H) side by side, as the output projection takes them: (.., L, W)."""
        x = attended.transpose(-3, -2).flatten(-2)
        return x if self.ln is None else self.ln(x, x.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(query keyT / sqrt(W/H) + mask) value, each (.., H, L, W/H); `causal` hides later keys from a query."""
    learns = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
    fused = FUSED_FORWARD and not learns and not torch.compiler.is_compiling()
    if fused or query.device.type != "cpu" or key.shape[-2] > PLAIN_ATTENTION_KEYS.get(query.dtype, 0):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    if causal:
        mask = torch.full_like(scores[0, 0], -torch.inf).triu(1)
    if mask is not None:
        scores += mask
    return scores.softmax(-1) @ value


class MLP(nn.Module):
    """c_fc, activation, c_proj."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.c_fc = FrozenLinear(width, hidden)
        self.c_proj = FrozenLinear(hidden, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        if self.activation != "quick_gelu":
            return self.c_proj(linear_gelu(x, self.c_fc, GELU[self.activation]))
        if torch.compiler.is_compiling():  # exported graphs need plain layers, which other tools can quantise
            hidden = self.c_fc(x)
            return self.c_proj(hidden * torch.sigmoid(1.702 * hidden))
        weights = (self.c_fc.weight, self.c_fc.bias, self.c_proj.weight, self.c_proj.bias)
        return QuickGELUMLP.apply(x, *weights)  # type: ignore[no-untyped-call]


class GatedMLP(nn.Module):
    """c_proj(ln(silu(c_gate(x)) * c_fc(x))): SwiGLU (Shazeer, arXiv 2002.05202) with a norm."""

    def __init__(self, width: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.c_gate = FrozenLinear(width, hidden)
        self.c_fc = FrozenLinear(width, hidden)
        self.ln = LayerNorm(hidden, eps)
        self.c_proj = FrozenLinear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.c_proj(self.ln(F.silu(self.c_gate(x)) * self.c_fc(x), x.dtype))
        return found


class Block(nn.Module):
    """A pre-norm transformer block, x + attention(ln_1(x)), then x + mlp(ln_2(x))."""

    def __init__(
        self, width: int, heads: int, hidden: int, activation: str, eps: float = 1e-5, rotary: Rotary | None = None
    ) -> None:
        super().__init__()
        gated = activation == GATED
        self.attn = Attention(width, heads, rotary, LayerNorm(width, eps) if gated else None)
        self.ln_1 = LayerNorm(width, eps)
        self.mlp = GatedMLP(width, hidden, eps) if gated else MLP(width, hidden, activation)
        self.ln_2 = LayerNorm(width, eps)

    @property
    def dtype(self) -> torch.dtype:
        return self.attn.out_proj.weight.dtype

    def project(self, x: Tensor, first: int = 0, last: int = 3) -> tuple[Tensor, ...]:
        """Queries, keys, values (parts `first`..`last`) of x (.., L, W), each (.., H, L, W/H)."""
        return self.attn.split(self.attn.project(self.ln_1(x, self.dtype), first, last))

    def output(self, attended: Tensor) -> Tensor:
        """Output projection of the joined heads: (.., L, W) -> (.., L, W)."""
        projected: Tensor = self.attn.out_proj(attended)
        return projected

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Both residual additions: x (.., L, W) and attention output (.., H, L, W/H) -> (.., L, W)."""
        x = x + self.output(self.attn.joined(attended))
        return x + self.mlp(self.ln_2(x, self.dtype))

    def forward(self, x: Tensor, *, causal: bool = False) -> Tensor:
        """(.., L, W) -> (.., L, W)."""
        query, key, value = self.project(x)
        return self.finish(x, attend(self.attn.placed(query), self.attn.placed(key), value, causal=causal))

    def read(self, x: Tensor, at: Tensor, mask: Tensor | None = None, patches: bool = False) -> Tensor:
        """The block's output only for the tokens `at` (.., n, W) of x (.., L, W): exact in the last block. `mask`
        (.., 1, 1, L) is added to the scores. `patches`: `at` has the patches, at the same places as x."""
        (query,) = self.project(at, 0, 1)
        key, value = self.project(x, 1, 3)
        query = self.attn.placed(query) if patches else query
        return self.finish(at, attend(query, self.attn.placed(key), value, mask=mask))


def whole(block: Block, x: Tensor) -> Tensor:
    return block(x)


def causal(block: Block, x: Tensor) -> Tensor:
    return block(x, causal=True)


def replaced(x: Tensor, layers: Sequence[Tensor], depth: int) -> Tensor:
    """The input (B, L, W) of block `depth`: that layer's prompts (B, P, W), if any, in place of the last P rows."""
    if not 0 < depth < len(layers):
        return x
    return torch.cat([x[:, : -layers[depth].shape[1]], layers[depth]], 1)


class Transformer(nn.Module):
    """A stack of blocks, under OpenAI's name `resblocks`."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        hidden: int,
        activation: str,
        eps: float = 1e-5,
        rotary: Rotary | None = None,
    ) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, hidden, activation, eps, rotary) for _ in range(layers))

    @staticmethod
    def run(part: Callable[..., T], *inputs: Any) -> T:
        """part(*inputs) for a function of a block and tensors. Training may replace this method to compile the part
        (`daptune.train.compiling`)."""
        return part(*inputs)

    @property
    def blocks(self) -> list[Block]:
        return [block for block in self.resblocks if isinstance(block, Block)]

    def through(self, x: Tensor, blocks: Sequence[Block], layers: Sequence[Tensor], *, recompute: bool) -> Tensor:
        """The output (B, L, W) of the blocks for x, with deep prompts (`replaced`); `recompute` saves memory."""
        for depth, block in enumerate(blocks):
            x = replaced(x, layers, depth)
            again = recompute and x.requires_grad
            x = checkpoint(self.run, whole, block, x, use_reentrant=False) if again else self.run(whole, block, x)
        return x
