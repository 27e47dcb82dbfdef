"""CoOp + VPT: learn text and visual tokens together, with cross-entropy only.

DAPT's baseline without its losses: Cho, Kim & Kim, ICCV 2023, arXiv 2309.03406, section 3. Official:
mlvlab/DAPT trainers/dapt.py with VIS_BETA = TXT_BETA = 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .coop import CoOp, CoOpConfig
from .vision_prompts import VisionPromptConfig, initial_vision_prompt, joining_tokens


@dataclass(frozen=True)
class CoOpVPTConfig(VisionPromptConfig, CoOpConfig):
    """Options of both prompts."""


class CoOpVPT(CoOp):
    """z = image([CLS, u_1 .. u_P, patches]), w_c = text([v_1 .. v_M, class c, "."]), with u and v learned."""

    name = "coop_vpt"
    title = "CoOp + VPT"
    year = 2023
    config_class = CoOpVPTConfig
    sees = "features"
    config: CoOpVPTConfig
    vision_prompt: nn.Parameter

    def build(self, generator: torch.Generator) -> None:
        """The context v (M, W) of the text tower and the tokens u (P, W) of the vision tower."""
        super().build(generator)
        self.vision_prompt = initial_vision_prompt(self.clip, self.config, generator)

    def image_prompts(self) -> Tensor:
        return joining_tokens(self.clip, self.vision_prompt, self.config)
