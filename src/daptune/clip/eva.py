"""The image tower of EVA02-CLIP.

Sun et al., "EVA-CLIP: Improved Training Techniques for CLIP at Scale", arXiv 2303.15389; its blocks: Fang et al.,
"EVA-02: A Visual Representation for Neon Genesis", arXiv 2303.11331, section 2. Official: baaivision/EVA, EVA-CLIP.

A vision transformer whose patches have learned positions and, in attention, rotary ones; its MLPs are gated (SwiGLU),
with a norm inside MLP and attention. It is read at the class token. The text tower is that of CLIP. Shape letters:
`daptune.clip.model`.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

from .blocks import GATED
from .rotary import Rotary, square
from .vit import ViT

if TYPE_CHECKING:
    from .model import CLIPConfig

TRAINED_SIDE = 16
"""Patches along the side of an image in EVA-02's first training; places of other grids are scaled to it."""


class EVAViT(ViT):
    """Vision transformer with rotary positions and gated MLPs, read at its class token; visual tokens have no
    positions, as the class token."""

    def __init__(self, config: "CLIPConfig") -> None:
        width = config.vision_width
        places = square(config.image_size // config.patch_size, reference=TRAINED_SIDE)
        super().__init__(config, Rotary(places, width // config.vision_heads, first=1), GATED)
        self.conv1 = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size)  # with a bias
        self.ln_pre = nn.Identity()
        self.proj_bias = nn.Parameter(torch.empty(config.embed_dim))
