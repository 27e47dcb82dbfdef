"""CoOp: learn the words around the class name.

Zhou, Yang, Loy & Liu, "Learning to Prompt for Vision-Language Models", IJCV 2022, arXiv 2109.01134, section 3.2.
Official: KaiyangZhou/CoOp trainers/coop.py. Layout and differences: `daptune.methods.text_prompts`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..clip.towers import LEARNED_CONTEXT
from .base import Method
from .text_prompts import TextPromptConfig, TextPrompts


@dataclass(frozen=True)
class CoOpConfig(TextPromptConfig):
    """Options of CoOp: those of its context."""


class CoOp(Method):
    """p(y = c | x) = softmax_c(exp(logit_scale) z . w_c), w_c = text([v_1 .. v_M, class c, "."]), with v learned."""

    name = "coop"
    title = "Context Optimization (CoOp)"
    year = 2022
    config_class = CoOpConfig
    sees = "fixed features"
    needs = frozenset({LEARNED_CONTEXT})
    config: CoOpConfig
    text_prompt: nn.Parameter

    def build(self, generator: torch.Generator) -> None:
        """The context v: (M, W), or (C, M, W) if class-specific."""
        self.prompts = TextPrompts(self.backbone, self.prompt_names, self.config)
        self.text_prompt = self.prompts.initial(generator)

    def text_features(self) -> Tensor:
        return self.prompts.features(self.text_prompt)
