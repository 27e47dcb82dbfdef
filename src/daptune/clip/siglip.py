"""The towers of SigLIP and SigLIP 2 at a fixed resolution.

Zhai, Mustafa, Kolesnikov & Beyer, "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, arXiv 2303.15343;
Tschannen et al., "SigLIP 2", arXiv 2502.14786. Official: google-research/big_vision,
models/proj/image_text/two_towers.py.

Images have no class token: a learned probe pools all tokens (MAP head), and its output is the feature. Every token of a
text sees all others, the pads behind it too, and the last position is read; so texts are always of full length, and no
prefix is shared. Both are pre-norm transformers of the blocks of CLIP. Shape letters: `daptune.clip.model`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import BackboneError
from . import towers
from .blocks import MLP, Attention, Block, LayerNorm, Transformer, attend, whole
from .frozen import FrozenLinear
from .suffixes import Suffixes
from .towers import Halfway, TextTower, VisionTower

if TYPE_CHECKING:
    from .model import CLIPConfig


class MAPHead(nn.Module):
    """Multihead attention pooling: z = a + mlp(ln(a)), a the attention of a learned probe to the tokens."""

    def __init__(self, width: int, heads: int, hidden: int, activation: str, eps: float) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, width))
        self.attn = Attention(width, heads)
        self.ln = LayerNorm(width, eps)
        self.mlp = MLP(width, hidden, activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, W) -> (B, W) float32. The attention is computed in float32."""
        (query,) = self._parts(self.probe, 0, 1)  # (1, H, 1, W/H)
        key, value = self._parts(x, 1, 3)  # (B, H, L, W/H)
        attended = attend(query.expand(x.shape[0], -1, -1, -1), key, value)
        return self._finish(attended.transpose(-3, -2).flatten(-2))[:, 0]

    def each(self, x: Tensor) -> Tensor:
        """What the head makes of each token alone, whose attention is its value: (B, L, W) -> (B, L, W)."""
        (value,) = self._parts(x, 2, 3)
        return self._finish(value.transpose(-3, -2).flatten(-2))

    def _parts(self, x: Tensor, first: int, last: int) -> tuple[Tensor, ...]:
        dtype = self.attn.in_proj_weight.dtype
        return tuple(part.float() for part in self.attn.split(self.attn.project(x.to(dtype), first, last)))

    def _finish(self, attended: Tensor) -> Tensor:
        dtype = self.attn.in_proj_weight.dtype
        a: Tensor = self.attn.out_proj(attended.to(dtype)).float()
        return a + self.mlp(self.ln(a, dtype))


class MAPViT(VisionTower):
    """Vision transformer read by a MAP head; visual tokens stand behind the patches."""

    has = frozenset({towers.VISUAL_TOKENS, towers.PATCH_FEATURES, towers.IMAGE_ATTENTION})
    last = "head.ln.weight"

    def __init__(self, config: "CLIPConfig") -> None:
        super().__init__()
        width = config.vision_width
        sizes = config.vision_heads, config.vision_mlp, config.activation, config.norm_eps
        self.conv1 = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size)
        self.positional_embedding = nn.Parameter(torch.empty(config.patches, width))
        self.transformer = Transformer(width, config.vision_layers, *sizes)
        self.ln_post = LayerNorm(width, config.norm_eps)
        self.head = MAPHead(width, *sizes)

    def forward(
        self,
        images: Tensor,
        prompts: Tensor | None = None,
        *,
        before_ln_pre: bool = False,
        pool_prompts: bool = True,
        projected: bool = True,
        patches: bool = False,
        through: Sequence[Block] | None = None,
    ) -> Tensor:
        x = self.conv1(images.to(self.conv1.weight.dtype)).flatten(2).mT.float() + self.positional_embedding
        layers: list[Tensor] = []
        if prompts is not None:
            layers = [p.expand(images.shape[0], -1, -1) for p in prompts.unbind(-3)]  # J of (B, P, W)
            x = torch.cat([x, layers[0]], 1)
        x = self.transformer.through(x, through or self.transformer.blocks, layers, recompute=self.recompute)
        x = self.ln_post(x)
        own = x[:, : len(self.positional_embedding)]
        pooled: Tensor = self.head(x if pool_prompts else own)
        return torch.cat([pooled.unsqueeze(1), self.head.each(own)], 1) if patches else pooled

    def joining(self, tokens: Tensor) -> Tensor:
        return tokens  # there is no norm before the first block

    def widest(self, prompts: int) -> int:
        return (len(self.positional_embedding) + prompts) * self.head.mlp.c_fc.out_features


class FullText(TextTower):
    """Text transformer without a mask, read at its last position."""

    has = frozenset({towers.LEARNED_CONTEXT, towers.JOINING_TEXT_TOKENS})

    def __init__(self, config: "CLIPConfig") -> None:
        super().__init__()
        width, activation = config.text_width, config.text_activation or config.activation
        self.transformer = Transformer(
            width, config.text_layers, config.text_heads, config.text_mlp, activation, config.norm_eps
        )
        self.token_embedding = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, width))
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width))
        self.ln_final = LayerNorm(width, config.norm_eps)
        self.text_projection = FrozenLinear(width, config.embed_dim)

    @property
    def dtype(self) -> torch.dtype:
        return self.text_projection.weight.dtype

    def places(self, longest: int) -> int:
        return len(self.positional_embedding)

    def features(
        self,
        context: Tensor,
        suffixes: Suffixes,
        deep: Tensor | None = None,
        *,
        through: Sequence[Block] | None = None,
    ) -> Tensor:
        """Deep prompts stand at positions 0..m - 1. Many classes run in chunks that are recomputed in the backward
        pass, so that memory does not grow with C."""
        names, context, pads = self._placed(context, suffixes)
        layers = () if deep is None else deep.unbind(-3)
        *inner, last = through or self.transformer.blocks

        def run(part: Tensor, context: Tensor, *layers: Tensor) -> Tensor:
            x = self._enter((context.unsqueeze(1), part.unsqueeze(0), pads.expand(1, 1, -1, -1)), inner, layers)
            return self._read(last, _put(x, layers, len(inner)))

        learned = context.requires_grad or through is not None
        found = self._in_chunks(run, names, context, *layers, contexts=len(context), learned=learned)
        return _pooled(found, suffixes)

    def below(self, context: Tensor, suffixes: Suffixes, block: int) -> Halfway:
        """Nothing is shared above the first block: `own` is the states of all texts (K, L, W)."""
        names, placed, pads = self._placed(context.unsqueeze(0), suffixes)
        blocks = self.transformer.blocks[:block]

        def run(part: Tensor, context: Tensor) -> Tensor:
            return self._enter((context.unsqueeze(1), part.unsqueeze(0), pads.expand(1, 1, -1, -1)), blocks, ())

        found = self._in_chunks(run, names, placed, contexts=1, learned=context.requires_grad)
        return Halfway(block, found.new_zeros(0), found[0])

    def above(
        self, halfway: Halfway, suffixes: Suffixes, common: Tensor | None = None, own: Tensor | None = None
    ) -> Tensor:
        """Common tokens join before the first position, a text's own tokens take the first ones."""
        x, layers = halfway.own, () if common is None else common[1:].unbind()
        if own is not None:
            pool = suffixes.pool
            tokens = own if pool is None else own.index_select(0, pool.to(own.device).owners)
            x = torch.cat([tokens, x[:, own.shape[1] :]], 1)
        if common is not None:
            x = torch.cat([common[0].expand(len(x), -1, -1), x], 1)
        *inner, last = self.transformer.blocks[halfway.block :]

        def run(part: Tensor, *layers: Tensor) -> Tensor:
            part = part.unsqueeze(0)
            for depth, block in enumerate(inner):
                part = self.transformer.run(whole, block, _put(part, layers, depth))
            return self._read(last, _put(part, layers, len(inner)))

        learned = any(tensor.requires_grad for tensor in (x, *layers))
        return _pooled(self._in_chunks(run, x, *layers, contexts=1, learned=learned), suffixes)[0]

    def _placed(self, context: Tensor, suffixes: Suffixes) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings with positions of names (K, S, W), contexts (N, M, W) and the pads behind both (L - M - S, W)."""
        names, pad = suffixes.laid_out(context.device, self._embedded)  # (K, S, W), (1, W)
        places, first, last = self.positional_embedding, context.shape[1], context.shape[1] + names.shape[1]
        return names + places[first:last], context + places[:first], pad + places[last:]

    def _in_chunks(
        self, run: Callable[..., Tensor], texts: Tensor, *shared: Tensor, contexts: int, learned: bool
    ) -> Tensor:
        """run(texts, *shared) for some of the texts (K, ..) at a time, joined along dimension 1; recomputed in the
        backward pass if something is learned."""
        rows = max(1, towers.TEXT_CHUNK_TOKENS // (contexts * len(self.positional_embedding)))
        again = rows < len(texts) and torch.is_grad_enabled() and learned
        parts = texts.split(rows)
        return torch.cat(
            [checkpoint(run, p, *shared, use_reentrant=False) if again else run(p, *shared) for p in parts], 1
        )

    def _embedded(self, suffixes: Suffixes) -> tuple[Tensor, Tensor]:
        """Embeddings of the suffixes, filled up with pads to the longest (K, S, W), and of a pad (1, W)."""
        longest = max(map(len, suffixes.ids))
        ids = [[*own, *[suffixes.pad] * (longest - len(own))] for own in suffixes.ids]
        return self.embed(ids), self.embed([suffixes.pad])

    def _enter(self, parts: Sequence[Tensor], blocks: Sequence[Block], layers: Sequence[Tensor]) -> Tensor:
        """The output (N, K, L, W) of the blocks for texts joined from parts, each (N or 1, K or 1, l, W).

        In the first block, what several texts share is projected once.
        """
        x = self.transformer.run(_open, blocks[0], *parts) if blocks else _joined(parts, -2)
        for depth, block in enumerate(blocks[1:], 1):
            x = self.transformer.run(whole, block, _put(x, layers, depth))
        return x

    def _read(self, last: Block, x: Tensor) -> Tensor:
        """Features (N, K, D); the last block computes queries and MLP for the position that is read."""
        return self._project(self.transformer.run(Block.read, last, x, x[..., -1:, :])[..., 0, :])

    def encode(self, tokens: Tensor) -> Tensor:
        if tokens.shape[1] != len(self.positional_embedding):
            raise BackboneError(
                f"the text tower sees pads, so it needs all {len(self.positional_embedding)} ids of a text, found "
                f"{tokens.shape[1]}: take them from backbone.tokenizer(texts)."
            )
        return self.encode_embeddings(self.embed(tokens), tokens.new_full((len(tokens),), tokens.shape[1]))

    def encode_embeddings(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """T must be the tower's length, with the pads behind each text."""
        rows = max(1, towers.TEXT_CHUNK_TOKENS // embeddings.shape[1])
        recompute = len(embeddings) > rows and torch.is_grad_enabled() and embeddings.requires_grad

        def run(part: Tensor) -> Tensor:
            x = part + self.positional_embedding
            *blocks, last = self.transformer.blocks
            for block in blocks:
                x = self.transformer.run(whole, block, x)
            return self._project(self.transformer.run(Block.read, last, x, x[:, -1:])[:, 0])

        parts = embeddings.split(rows)
        return torch.cat([checkpoint(run, part, use_reentrant=False) if recompute else run(part) for part in parts])

    def _project(self, hidden: Tensor) -> Tensor:
        projected: Tensor = self.text_projection(self.ln_final(hidden, self.dtype)).float()
        return projected


def _open(block: Block, *parts: Tensor) -> Tensor:
    """The first block for texts joined from parts, each (N or 1, K or 1, l, W): (N, K, L, W)."""
    projected = zip(*(block.project(part) for part in parts), strict=True)
    query, key, value = (_joined(trio, -2) for trio in projected)
    return block.finish(_joined(parts, -2), attend(query, key, value))


def _pooled(features: Tensor, suffixes: Suffixes) -> Tensor:
    """Features (N, K, D) of names -> (N, C, D) of classes."""
    return features if suffixes.pool is None else suffixes.pool.to(features.device)(features)


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Parts whose first two dimensions are N or 1 and K or 1, repeated to (N, K, ..) and put together along `dim`."""
    size = torch.broadcast_shapes(*(part.shape[:2] for part in parts))
    return torch.cat([part.expand(*size, *part.shape[2:]) for part in parts], dim)


def _put(x: Tensor, layers: Sequence[Tensor], depth: int) -> Tensor:
    """The input (N, K, L, W) of block `depth`, its deep prompts (m, W) or (N, m, W), if any, at the first positions."""
    if not 0 < depth <= len(layers):
        return x
    tokens = layers[depth - 1]
    tokens = tokens.unsqueeze(-3).expand(*x.shape[:2], -1, -1)
    return torch.cat([tokens, x[..., tokens.shape[-2] :, :]], -2)
