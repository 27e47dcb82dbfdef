"""MaPLe: deep text prompts, and visual prompts that are linear functions of them.

Khattak, Rasheed, Maaz, Khan & Khan, "MaPLe: Multi-modal Prompt Learning", CVPR 2023, arXiv 2210.03117, section 3.2.
Official: muzairkhattak/multimodal-prompt-learning trainers/maple.py with clip/model.py, VisionTransformer_MaPLe and
ResidualAttentionBlock_MaPLe. Layout of the text tokens and frozen words: `daptune.methods.deep_text_prompts`.

Differences to the official code: it fixes the widths 512 and 768, here they are the backbone's; it always casts the
tokens of each layer to fp16; it ignores layers beyond the tower's, here they are an error; its checkpoints hold the
whole CLIP.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from ..clip.towers import LEARNED_CONTEXT, VISUAL_TOKENS
from .base import Method
from .deep_text_prompts import DeepTextPromptConfig, DeepTextPrompts
from .options import at_least

PAPER_DEPTH = 9


@dataclass(frozen=True)
class MaPLeConfig(DeepTextPromptConfig):
    """Options of MaPLe: those of its text tokens, and the depth of the prompts."""

    prompt_depth: Annotated[int, at_least(0, "0 (9 layers), 1 (shallow) or more layers")] = 0
    """Layers of both towers with their own tokens, J; 0: the paper's 9, or every layer of a smaller tower."""


class MaPLe(Method):
    """w_c = text([v_1 .. v_M, "of a", class c, "."]), z = image([CLS, patches, F(v_1) .. F(v_M)]), F(v) = W v + b.

    v, W and b are learned, separately for each layer j <= J.
    """

    name = "maple"
    title = "Multi-modal Prompt Learning (MaPLe)"
    year = 2023
    config_class = MaPLeConfig
    needs = frozenset({LEARNED_CONTEXT, VISUAL_TOKENS})
    config: MaPLeConfig

    def build(self, generator: torch.Generator) -> None:
        """The text tokens v (J, M, W_text) and the couplings W (J, W_vision, W_text), b (J, W_vision).

        Couplings are initialised as torch's linear layers; layers 2..J start from the same values.
        """
        sizes = self.clip.config
        layers = min(sizes.text_layers, sizes.vision_layers)
        depth = self.config.depth_of("prompt_depth", "shallower tower", layers, paper=PAPER_DEPTH)
        self.prompts = DeepTextPrompts(self.backbone, self.prompt_names, self.config)
        self.text_prompt = self.prompts.initial(depth, generator)
        bound = sizes.text_width**-0.5
        shape = (min(depth, 2), sizes.vision_width, sizes.text_width + 1)
        drawn = torch.empty(shape).uniform_(-bound, bound, generator=generator).to(self.clip.device)
        drawn = torch.cat([drawn[:1], drawn[1:].expand(depth - 1, -1, -1)])  # (J, W_vision, W_text + 1)
        self.coupling_weight = nn.Parameter(drawn[..., :-1].clone())
        self.coupling_bias = nn.Parameter(drawn[..., -1].clone())

    @property
    def vision_prompt(self) -> Tensor:
        """The visual tokens F_j(v): (J, M, W_vision)."""
        return self.text_prompt @ self.coupling_weight.mT + self.coupling_bias.unsqueeze(1)

    def text_features(self) -> Tensor:
        return self.prompts.features(self.text_prompt)

    def image_prompts(self) -> Tensor:
        return self.clip.visual.joining(self.vision_prompt)
