"""The vision transformer of OpenAI's CLIPs, read at its class token.

Radford et al. 2021, arXiv 2103.00020; Dosovitskiy et al., arXiv 2010.11929. Prompts enter it as in VPT (arXiv
2203.12119) and MaPLe (arXiv 2210.03117). Parameter names are those of openai/CLIP, clip/model.py. Towers of other
families that differ in a few places derive from it. Shape letters: `daptune.clip.model`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from . import towers
from .blocks import Block, LayerNorm, Transformer, replaced
from .rotary import Rotary
from .towers import VisionTower

if TYPE_CHECKING:
    from .model import CLIPConfig


class ViT(VisionTower):
    """Vision transformer, read at its class token (VPT, arXiv 2203.12119; MaPLe, arXiv 2210.03117)."""

    has = frozenset(
        {
            towers.VISUAL_TOKENS,
            towers.JOINING_VISUAL_TOKENS,
            towers.PATCH_FEATURES,
            towers.VISUAL_PROJECTION,
            towers.IMAGE_ATTENTION,
        }
    )
    last = "ln_post.weight"

    class_embedding: nn.Parameter | None
    proj_bias: nn.Parameter | None
    """Behind the projection, (D,); OpenAI's have none."""

    ln_pre: nn.Module

    def __init__(self, config: "CLIPConfig", rotary: Rotary | None = None, activation: str = "") -> None:
        """`activation`: of the blocks, if another than the config's."""
        super().__init__()
        width, eps = config.vision_width, config.norm_eps
        self.conv1 = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size, bias=False)
        own = nn.Parameter(torch.empty(width)) if config.class_token else None
        self.register_parameter("class_embedding", own)
        self.positional_embedding = nn.Parameter(torch.empty(config.class_token + config.patches, width))
        self.ln_pre = LayerNorm(width, eps)
        sizes = width, config.vision_layers, config.vision_heads, config.vision_mlp
        self.transformer = Transformer(*sizes, activation or config.activation, eps, rotary)
        self.ln_post = LayerNorm(width, eps)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))
        self.register_parameter("proj_bias", None)

    def embed(self, images: Tensor) -> Tensor:
        """Class token and patches with positions, before ln_pre: (B, 3, R, R) -> (B, 1 + G, W)."""
        x = self.conv1(images.to(self.conv1.weight.dtype)).flatten(2).mT.float()  # (B, G, W)
        if self.class_embedding is not None:
            x = torch.cat([self.class_embedding.expand(images.shape[0], 1, -1), x], 1)
        return x + self.positional_embedding

    def enter(self, images: Tensor, prompts: Tensor | None, before_ln_pre: bool) -> tuple[Tensor, list[Tensor]]:
        """The input (B, L, W) of the first block, visual tokens last, and the visual tokens of each layer, J of
        (B, P, W)."""
        x = self.ln_pre(self.embed(images))
        if prompts is None:
            return x, []
        layers = [p.expand(images.shape[0], -1, -1) for p in prompts.unbind(-3)]
        # attention ignores the order of tokens without position embedding: their place does not matter
        return torch.cat([x, self.ln_pre(layers[0]) if before_ln_pre else layers[0]], 1), layers

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
        x, layers = self.enter(images, prompts, before_ln_pre)
        *blocks, last = through or self.transformer.blocks
        x = self.transformer.through(x, blocks, layers, recompute=self.recompute)
        x = replaced(x, layers, len(blocks))
        # only the class token is read, or it and the patches, which precede all prompts
        read = x[:, : len(self.positional_embedding) if patches else 1]
        x = self.transformer.run(Block.read, last, x, read, None, patches)
        normed = self.ln_post(x if patches else x[:, 0], self.proj.dtype)  # (B, 1 + G, W) or (B, W)
        return self.projected(normed) if projected else normed.float()

    def projected(self, pooled: Tensor) -> Tensor:
        """Features: (.., W) in the type of the projection -> (.., D) float32."""
        features = (pooled @ self.proj).float()
        return features if self.proj_bias is None else features + self.proj_bias

    def below(self, images: Tensor, block: int) -> Tensor:
        x, blocks = self.ln_pre(self.embed(images)), self.transformer.blocks[:block]
        return self.transformer.through(x, blocks, [], recompute=self.recompute)

    def above(self, states: Tensor, block: int, tokens: Tensor | None = None) -> Tensor:
        layers = [] if tokens is None else [t.expand(states.shape[0], -1, -1) for t in tokens]  # J of (B, n, W)
        *inner, last = self.transformer.blocks[block:]
        x = self.transformer.through(torch.cat([states, *layers[:1]], 1), inner, layers, recompute=self.recompute)
        x = replaced(x, layers, len(inner))
        read = torch.cat([x[:, :1], x[:, states.shape[1] :]], 1)
        normed: Tensor = self.ln_post(self.transformer.run(Block.read, last, x, read))
        return normed

    def joining(self, tokens: Tensor) -> Tensor:
        return torch.cat([self.ln_pre(tokens[:1]), tokens[1:]])  # LN acts on each token separately

    def widest(self, prompts: int) -> int:
        return (len(self.positional_embedding) + prompts) * self.transformer.blocks[0].mlp.c_fc.out_features

    def projection(self) -> Tensor:
        return self.proj

    def project(self, pooled: Tensor, matrix: Tensor) -> Tensor:
        features = super().project(pooled, matrix)
        return features if self.proj_bias is None else features + self.proj_bias

    def matrices(self) -> tuple[nn.Parameter, ...]:
        return (self.proj,)
