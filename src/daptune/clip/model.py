"""The frozen two-tower CLIP with prompts.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision" (arXiv 2103.00020).
Parameter names and semantics are those of OpenAI's checkpoints (openai/CLIP, clip/model.py), so that their state
dicts load unchanged. Only vision transformers: every size from B/32 to bigG/14 is a `CLIPConfig`.

Shape letters, used in the whole package:

    B  images in a batch         D  width of the joint embedding    P  visual prompt tokens
    C  classes                   W  width of a tower                M  context (text prompt) tokens
    N  contexts                  R  side of an image in pixels      J  depth of a prompt (1 = shallow)
    T  tokens of a text          G  patches of an image             S  tokens of a class suffix (name . EOT)
    H  attention heads           L  tokens in a sequence

Precision: the residual stream, layer norms and features are float32; `set_precision` sets the type of the frozen
matrices and their products. Weights are frozen, so linear layers save no input for the backward pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import BackboneError
from .frozen import FrozenLinear, QuickGELUMLP, linear

T = TypeVar("T")
Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Up to this number of keys, attention on a CPU is faster as plain products than in torch's fused kernel: in float32
# with few keys, in bfloat16 by a factor of three, where the memory of the scores sets the limit.
PLAIN_ATTENTION_KEYS = {torch.float32: 128, torch.bfloat16: 320}
TEXT_CHUNK_TOKENS = 8_192  # more tokens than this are encoded in chunks, recomputed in the backward pass
# Values of the widest activation for which a CPU encodes images in one group: it then stays in the caches.
IMAGE_CHUNK_NUMBERS = 6_000_000


@dataclass(frozen=True)
class CLIPConfig:
    """Sizes of a CLIP; all but the heads and the activation follow from the shapes of a checkpoint."""

    embed_dim: int
    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    vision_mlp: int
    context_length: int
    vocab_size: int
    text_width: int
    text_layers: int
    text_heads: int
    text_mlp: int
    activation: str = "quick_gelu"

    def __post_init__(self) -> None:
        if self.activation not in ("quick_gelu", "gelu"):
            raise BackboneError(f"activation must be 'quick_gelu' or 'gelu', found {self.activation!r}.")
        for tower, width, heads in (
            ("vision", self.vision_width, self.vision_heads),
            ("text", self.text_width, self.text_heads),
        ):
            if width % heads:
                raise BackboneError(f"{tower} width {width} is not a multiple of its {heads} heads.")

    @property
    def patches(self) -> int:
        """G, the patches of one image."""
        return (self.image_size // self.patch_size) ** 2


class LayerNorm(nn.LayerNorm):
    """Layer norm in float32, as in openai/CLIP; the result is cast to `dtype`."""

    def forward(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return super().forward(x.float()).to(dtype)


class Attention(nn.Module):
    """The frozen projections of multi-head attention, under the parameter names of `nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = FrozenLinear(width, width)

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


def attend(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(query keyT / sqrt(W/H) + mask) value, each (.., H, L, W/H); `causal` hides later keys from a query."""
    if query.device.type != "cpu" or key.shape[-2] > PLAIN_ATTENTION_KEYS.get(query.dtype, 0):
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
        if self.activation == "gelu":
            return self.c_proj(F.gelu(self.c_fc(x)))
        if torch.compiler.is_compiling():  # exported graphs need plain layers, which other tools can quantise
            hidden = self.c_fc(x)
            return self.c_proj(hidden * torch.sigmoid(1.702 * hidden))
        weights = (self.c_fc.weight, self.c_fc.bias, self.c_proj.weight, self.c_proj.bias)
        return QuickGELUMLP.apply(x, *weights)  # type: ignore[no-untyped-call]


class Block(nn.Module):
    """A pre-norm transformer block, x + attention(ln_1(x)), then x + mlp(ln_2(x))."""

    def __init__(self, width: int, heads: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = LayerNorm(width)
        self.mlp = MLP(width, hidden, activation)
        self.ln_2 = LayerNorm(width)

    @property
    def dtype(self) -> torch.dtype:
        return self.attn.out_proj.weight.dtype

    def project(self, x: Tensor, first: int = 0, last: int = 3) -> tuple[Tensor, ...]:
        """Queries, keys, values (parts `first`..`last`) of x (.., L, W), each (.., H, L, W/H)."""
        return self.attn.split(self.attn.project(self.ln_1(x, self.dtype), first, last))

    def output(self, attended: Tensor) -> Tensor:
        """Output projection of the attention: (.., L, W) -> (.., L, W)."""
        projected: Tensor = self.attn.out_proj(attended)
        return projected

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Both residual additions: x (.., L, W) and attention output (.., H, L, W/H) -> (.., L, W)."""
        x = x + self.output(attended.transpose(-3, -2).flatten(-2))
        return x + self.mlp(self.ln_2(x, self.dtype))

    def forward(self, x: Tensor, *, causal: bool = False) -> Tensor:
        """(B, L, W) -> (B, L, W)."""
        query, key, value = self.project(x)
        return self.finish(x, attend(query, key, value, causal=causal))

    def read(self, x: Tensor, at: Tensor, mask: Tensor | None = None) -> Tensor:
        """The block's output only for the tokens `at` (B, n, W) of x (B, L, W): exact in the last block. `mask`
        (B, 1, 1, L) is added to the scores."""
        (query,) = self.project(at, 0, 1)
        key, value = self.project(x, 1, 3)
        return self.finish(at, attend(query, key, value, mask=mask))


def _whole(block: Block, x: Tensor) -> Tensor:
    return block(x)


def _causal(block: Block, x: Tensor) -> Tensor:
    return block(x, causal=True)


class Transformer(nn.Module):
    """A stack of blocks, under OpenAI's name `resblocks`."""

    def __init__(self, width: int, layers: int, heads: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, hidden, activation) for _ in range(layers))

    @staticmethod
    def run(part: Callable[..., T], *inputs: Any) -> T:
        """part(*inputs) for a function of a block and tensors. Training may replace this method to compile the part
        (`daptune.train.compiling`)."""
        return part(*inputs)

    @property
    def blocks(self) -> list[Block]:
        return [block for block in self.resblocks if isinstance(block, Block)]


class VisionTower(nn.Module):
    """Vision transformer with prompts (VPT, arXiv 2203.12119; MaPLe, arXiv 2210.03117)."""

    recompute = False
    """Recompute blocks in the backward pass: less memory for one more forward pass."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        width = config.vision_width
        self.conv1 = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(config.patches + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(
            width, config.vision_layers, config.vision_heads, config.vision_mlp, config.activation
        )
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))

    def embed(self, images: Tensor) -> Tensor:
        """Class token and patches with positions, before ln_pre: (B, 3, R, R) -> (B, 1 + G, W)."""
        patches = self.conv1(images.to(self.conv1.weight.dtype)).flatten(2).mT.float()  # (B, G, W)
        token = self.class_embedding.expand(images.shape[0], 1, -1)
        return torch.cat([token, patches], 1) + self.positional_embedding

    def forward(
        self,
        images: Tensor,
        prompts: Tensor | None = None,
        *,
        before_ln_pre: bool = False,
        projected: bool = True,
        patches: bool = False,
        through: Sequence[Block] | None = None,
    ) -> Tensor:
        """(B, 3, R, R) -> (B, D); without `projected` (B, W), with `patches` (B, 1 + G, D); see `CLIP.encode_image`."""
        x = self.ln_pre(self.embed(images))
        layers: list[Tensor] = []
        if prompts is not None:
            layers = [p.expand(images.shape[0], -1, -1) for p in prompts.unbind(-3)]  # J of (B, P, W)
            # LN acts on each token separately, and attention ignores the order of tokens without position embedding:
            # "before ln_pre" means ln_pre of the prompts, and their place in the sequence does not matter
            x = torch.cat([x, self.ln_pre(layers[0]) if before_ln_pre else layers[0]], 1)
        *blocks, last = through or self.transformer.blocks
        run = self.transformer.run
        for depth, block in enumerate(blocks):
            if 0 < depth < len(layers):
                x = torch.cat([x[:, : -layers[depth].shape[1]], layers[depth]], 1)
            again = self.recompute and x.requires_grad
            x = checkpoint(run, _whole, block, x, use_reentrant=False) if again else run(_whole, block, x)
        if len(layers) > len(blocks) > 0:
            x = torch.cat([x[:, : -layers[-1].shape[1]], layers[-1]], 1)
        # only the class token is read, or it and the patches, which precede all prompts
        x = run(Block.read, last, x, x[:, : len(self.positional_embedding) if patches else 1])
        normed = self.ln_post(x if patches else x[:, 0], self.proj.dtype)  # (B, 1 + G, W) or (B, W)
        return (normed @ self.proj if projected else normed).float()


class CLIP(nn.Module):
    """Both towers, frozen. `CLIP(config)` has uninitialised weights: load a state dict."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = VisionTower(config)
        self.transformer = Transformer(
            config.text_width, config.text_layers, config.text_heads, config.text_mlp, config.activation
        )
        # not by its own normal_: on the meta device that imports all of torch.compile, a third of the time of a start
        self.token_embedding = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, config.text_width))
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.text_width))
        self.ln_final = LayerNorm(config.text_width)
        self.text_projection = nn.Parameter(torch.empty(config.text_width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.full((), 4.6052))
        self.requires_grad_(False)
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.logit_scale.device

    @property
    def dtype(self) -> torch.dtype:
        return self.text_projection.dtype

    def set_precision(self, precision: Precision) -> "CLIP":
        """Store the frozen matrices and compute their products in `precision`; norms and embeddings stay float32."""
        if precision not in _DTYPES:
            raise BackboneError(f"precision must be one of {', '.join(_DTYPES)}, found {precision!r}.")
        dtype = _DTYPES[precision]
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(dtype)
            elif isinstance(module, Attention):
                module.in_proj_weight.data = module.in_proj_weight.data.to(dtype)
                module.in_proj_bias.data = module.in_proj_bias.data.to(dtype)
        for matrix in (self.visual.proj, self.text_projection):
            matrix.data = matrix.data.to(dtype)
        return self

    def encode_image(
        self,
        images: Tensor,
        prompts: Tensor | None = None,
        *,
        before_ln_pre: bool = False,
        projected: bool = True,
        patches: bool = False,
        through: Sequence[Block] | None = None,
    ) -> Tensor:
        """Image features, not normalised: (B, 3, R, R) -> (B, D) float32. Without `projected`, the class token after
        ln_post: (B, W). With `patches`, the class token followed by each patch: (B, 1 + G, D), with the same norm and
        projection, which were trained only on the class token.

        `prompts` are (J, P, W) for all images or (B, J, P, W) per image. Tokens of the first layer are added to the
        sequence after ln_pre (VPT, DAPT) or before it (`before_ln_pre`: MaPLe, PromptSRC); those of layer j < J replace
        the prompts' outputs at the input of block j. `through` replaces the tower's blocks (`daptune.clip.lora`).
        """
        if prompts is not None and not 1 <= prompts.shape[-3] <= self.config.vision_layers:
            raise BackboneError(
                f"prompt depth must be 1 to {self.config.vision_layers} (the vision tower's layers), "
                f"found {prompts.shape[-3]}."
            )
        groups = self._groups(images, 0 if prompts is None else prompts.shape[-2])
        each = prompts.tensor_split(groups) if prompts is not None and prompts.dim() == 4 else [prompts] * groups
        found = [
            self.visual(*part, before_ln_pre=before_ln_pre, projected=projected, patches=patches, through=through)
            for part in zip(images.tensor_split(groups), each, strict=True)
        ]
        return found[0] if groups == 1 else torch.cat(found)

    def _groups(self, images: Tensor, prompts: int) -> int:
        """Number of groups of about equal size to split the images (B, 3, R, R) into, with `prompts` prompts each."""
        if images.device.type != "cpu" or torch.compiler.is_compiling():
            return 1
        numbers = len(images) * (1 + self.config.patches + prompts) * self.config.vision_mlp
        return max(1, round(numbers / IMAGE_CHUNK_NUMBERS))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Text features, not normalised: ids (C, T) -> (C, D) float32. EOT is the highest id of a row."""
        lengths = tokens.argmax(-1) + 1
        return self.encode_embeddings(self.token_embedding(tokens[:, : int(lengths.max())]), lengths)

    def encode_embeddings(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Text features of token embeddings (C, T, W) without positions, lengths (C,) including the EOT -> (C, D)
        float32, not normalised.

        The tower is causal and read at the EOT, so T may be the longest length. Many classes run in chunks that are
        recomputed in the backward pass, so that memory does not grow with C.
        """
        rows = max(1, TEXT_CHUNK_TOKENS // embeddings.shape[1])
        if len(embeddings) <= rows:
            return self._encode_chunk(embeddings, lengths)
        recompute = torch.is_grad_enabled() and embeddings.requires_grad
        chunks = zip(embeddings.split(rows), lengths.split(rows), strict=True)
        run = self._encode_chunk
        return torch.cat([checkpoint(run, *c, use_reentrant=False) if recompute else run(*c) for c in chunks])

    def _encode_chunk(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        x = (embeddings + self.positional_embedding[: embeddings.shape[1]]).float()
        *blocks, last = self.transformer.blocks
        for block in blocks:
            x = self.transformer.run(_causal, block, x)
        eot = x[torch.arange(len(x), device=x.device), lengths - 1].unsqueeze(1)  # (C, 1, W)
        padding = torch.arange(x.shape[1], device=x.device) >= lengths.unsqueeze(1)  # (C, T)
        mask = torch.zeros(padding.shape, dtype=self.dtype, device=x.device).masked_fill_(padding, -torch.inf)
        return self.project_text(last.read(x, eot, mask[:, None, None])[:, 0])

    def project_text(self, hidden: Tensor) -> Tensor:
        """Final norm and projection of the EOT's hidden states: (.., W) -> (.., D) float32."""
        return (self.ln_final(hidden, self.dtype) @ self.text_projection).float()
