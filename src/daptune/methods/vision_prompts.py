"""Learned visual prompts: how many, how deep, where they enter, and their first values.

Jia et al., "Visual Prompt Tuning" (VPT), ECCV 2022, arXiv 2203.12119, section 3.2 (VPT-shallow and VPT-deep).
Official: KMnP/vpt src/models/vit_prompt/vit.py. On CLIP two conventions exist:

    after_ln_pre  beside the class token, behind ln_pre; uniform(-v, v), v = sqrt(6 / (3 p^2 + W)), the Xavier bound of
                  the patch projection (VPT; mlvlab/DAPT trainers/dapt.py)
    append        behind the patches, in front of ln_pre; N(0, 0.02) (MaPLe, PromptSRC: clip/model.py of
                  muzairkhattak/multimodal-prompt-learning)

Prompts carry no position, so their order in the sequence does not matter; ln_pre and the first values do. The
official prompt dropout (0 by default) and projection (off by default) are left out.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..clip.model import CLIP
from .options import MethodConfig

POSITIONS = ("after_ln_pre", "append")


@dataclass(frozen=True)
class VisionPromptConfig(MethodConfig):
    """Options of learned visual tokens."""

    vision_tokens: int = 16
    """Visual prompt tokens a layer, P."""
    vision_depth: int = 1
    """Layers that get tokens of their own, J: 1 is VPT-shallow, 0 is every layer (VPT-deep)."""
    vision_position: str = "after_ln_pre"
    """after_ln_pre (VPT, DAPT) or append (in front of ln_pre: MaPLe, PromptSRC)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("vision_tokens", self.vision_tokens >= 1, "1 token or more")
        self.require("vision_depth", self.vision_depth >= 0, "0 (every layer), 1 (shallow) or more layers")
        self.require("vision_position", self.vision_position in POSITIONS, f"one of {', '.join(POSITIONS)}")


def initial_vision_prompt(clip: CLIP, config: VisionPromptConfig, generator: torch.Generator) -> nn.Parameter:
    """First visual tokens: (P, W) for the first layer alone, (J, P, W) for J > 1 layers."""
    width = clip.config.vision_width
    depth = config.depth_of("vision_depth", "vision tower", clip.config.vision_layers)
    shape = [depth] * (depth > 1) + [config.vision_tokens, width]
    if config.vision_position == "append":
        tokens = torch.randn(shape, generator=generator) * 0.02
    else:
        bound = math.sqrt(6 / (3 * clip.config.patch_size**2 + width))
        tokens = torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return nn.Parameter(tokens.to(clip.device))


def joining_tokens(clip: CLIP, prompt: Tensor, config: VisionPromptConfig) -> Tensor:
    """Visual tokens (P, W) or (J, P, W) as `Method.image_prompts` gives them: (J, P, W), to join behind ln_pre."""
    layers = prompt if prompt.dim() == 3 else prompt.unsqueeze(0)
    return behind_ln_pre(clip, layers) if config.vision_position == "append" else layers


def behind_ln_pre(clip: CLIP, layers: Tensor) -> Tensor:
    """Tokens (J, P, W) that belong in front of ln_pre, as what it makes of them: it acts on each token alone, and on
    those of the first layer only."""
    return torch.cat([clip.visual.ln_pre(layers[:1]), layers[1:]])
