"""Learned visual prompts: number, depth, position and initial values.

Jia et al., "Visual Prompt Tuning" (VPT), ECCV 2022, arXiv 2203.12119, section 3.2 (VPT-shallow and VPT-deep).
Official: KMnP/vpt src/models/vit_prompt/vit.py. On CLIP two conventions exist:

    after_ln_pre  next to the class token, after ln_pre; uniform(-v, v), v = sqrt(6 / (3 p^2 + W)), the Xavier bound of
                  the patch projection (VPT; mlvlab/DAPT trainers/dapt.py)
    append        after the patches, before ln_pre; N(0, 0.02) (MaPLe, PromptSRC: clip/model.py of
                  muzairkhattak/multimodal-prompt-learning)

Prompts have no position embedding, so their order in the sequence does not matter. The official prompt dropout (0 by
default) and projection (off by default) are left out.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from ..clip.model import CLIP
from ..clip.towers import VISUAL_TOKENS
from .base import Method
from .options import Depth, MethodConfig, Tokens, one_of
from .text_prompts import noise

POSITIONS = ("after_ln_pre", "append")


@dataclass(frozen=True)
class VisionPromptConfig(MethodConfig):
    vision_tokens: Tokens = 16
    """Visual prompt tokens per layer, P."""
    vision_depth: Depth = 1
    """Layers with their own tokens, J: 1 is VPT-shallow, 0 is every layer (VPT-deep)."""
    vision_position: Annotated[str, one_of(POSITIONS)] = "after_ln_pre"
    """after_ln_pre (VPT, DAPT) or append (before ln_pre: MaPLe, PromptSRC)."""
    vision_pooled: bool = True
    """Whether a backbone's pooling head (SigLIP) pools over the visual tokens too, or over the patches alone."""


def initial_vision_prompt(
    clip: CLIP, config: VisionPromptConfig, generator: torch.Generator, *, paper_depth: int = 0
) -> nn.Parameter:
    """Initial visual tokens: (P, W) for one layer, (J, P, W) for J > 1 layers."""
    width = clip.config.vision_width
    depth = config.depth_of("vision_depth", "vision tower", clip.config.vision_layers, paper=paper_depth)
    shape = [depth] * (depth > 1) + [config.vision_tokens, width]
    if config.vision_position == "append":
        return noise(clip, shape, generator)
    bound = math.sqrt(6 / (3 * clip.config.patch_size**2 + width))
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator).to(clip.device))


class VisionPrompted(Method):
    """A method with visual tokens u, (P, W) or deep (J, P, W), beside what the next base class learns."""

    needs = frozenset({VISUAL_TOKENS})
    config: VisionPromptConfig
    vision_prompt: nn.Parameter

    def build(self, generator: torch.Generator) -> None:
        """What the next base class learns, then the visual tokens u."""
        super().build(generator)
        self.vision_prompt = initial_vision_prompt(self.clip, self.config, generator)

    def image_prompts(self) -> Tensor:
        return joining_tokens(self.clip, self.vision_prompt, self.config)

    @property
    def pools_prompts(self) -> bool:
        return self.config.vision_pooled


def joining_tokens(clip: CLIP, prompt: Tensor, config: VisionPromptConfig) -> Tensor:
    """Visual tokens (P, W) or (J, P, W) -> (J, P, W) for `Method.image_prompts`."""
    layers = prompt if prompt.dim() == 3 else prompt.unsqueeze(0)
    return clip.visual.joining(layers) if config.vision_position == "append" else layers
