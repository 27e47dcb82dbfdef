"""The image tower of Perception Encoder (PE-Core).

Bolya et al., "Perception Encoder: The best visual embeddings are not at the output of the network", arXiv 2504.13181,
section 2. Official: facebookresearch/perception_models, core/vision_encoder/pe.py.

A vision transformer whose patches have learned positions and, in attention, rotary ones; a MAP head pools all tokens,
the class token and visual tokens among them, and a projection follows. The text tower is that of CLIP, with 32 or 72
places. Shape letters: `daptune.clip.model`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import BackboneError
from . import towers
from .blocks import Block
from .rotary import Rotary, square
from .siglip import MAPHead
from .towers import VisionTower
from .vit import ViT

if TYPE_CHECKING:
    from .model import CLIPConfig

HEADS = 8
"""Of the pooling, whatever the width."""
MLP_RATIO = 4
"""Of the pooling's MLP."""


class PEViT(ViT):
    """Vision transformer with rotary positions, read by a MAP head; visual tokens stand behind the patches and have no
    positions, as the class token."""

    has = frozenset({towers.VISUAL_TOKENS, towers.PATCH_FEATURES, towers.VISUAL_PROJECTION, towers.IMAGE_ATTENTION})
    last = "head.ln.weight"

    def __init__(self, config: "CLIPConfig") -> None:
        width, first = config.vision_width, int(config.class_token)
        if width % HEADS:
            raise BackboneError(f"the pooling of a PE-Core has {HEADS} heads, found a width of {width}.")
        # places are counted behind the class token: from 1 with one, and along x first
        places = square(config.image_size // config.patch_size, start=first)[:, ::-1]
        super().__init__(config, Rotary(places, width // config.vision_heads, first))
        self.head = MAPHead(width, HEADS, MLP_RATIO * width, config.activation, config.norm_eps)
        self.proj_bias = nn.Parameter(torch.empty(config.embed_dim))
        self.first = first

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
        """With `patches`, what the head makes of each patch alone."""
        x, layers = self.enter(images, prompts, before_ln_pre)
        x = self.transformer.through(x, through or self.transformer.blocks, layers, recompute=self.recompute)
        x = self.ln_post(x)
        own = x[:, : len(self.positional_embedding)]
        pooled: Tensor = self.head(x if pool_prompts else own)
        if patches:
            pooled = torch.cat([pooled.unsqueeze(1), self.head.each(own[:, self.first :])], 1)
        return self.projected(pooled.to(self.proj.dtype)) if projected else pooled

    # no feature is read at a single token
    below = VisionTower.below
    above = VisionTower.above
