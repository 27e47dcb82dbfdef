"""TaskRes: a learned residual on the text classifier; both towers stay frozen.

Yu et al., "Task Residual for Tuning Vision-Language Models", CVPR 2023, arXiv 2211.10277, section 3.2. Official:
geekyutao/TaskRes trainers/taskres.py (TaskRes-Text on the regular base).

Differences to the official code: its base is the mean of text features that are not normalised (length about 10 with
OpenAI's weights, so that a residual counts a tenth), with "_" kept in class names; here it is zero-shot CLIP's unit
class weights. `official_base` uses theirs, as does the paper's preset, whose alpha and learning rate belong to it.
On ImageNet the official code adds one more template for each model built in a process; this is not repeated.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .options import Fits
from .templates import unnormalised_features
from .zero_shot import ZeroShot, ZeroShotConfig


@dataclass(frozen=True)
class TaskResConfig(ZeroShotConfig):
    """Options of TaskRes: those of the base classifier, and of the residual."""

    alpha: Annotated[float, Fits(bool, "a number other than 0, or nothing is learned")] = 0.5
    """Weight of the residual."""
    official_base: bool = False
    """Base of the official code: the mean over templates of text features, not normalised, with "_" kept in names."""


class TaskRes(ZeroShot):
    """w_c = normalise(t_c + alpha x_c), t the frozen base, x learned."""

    name = "taskres"
    title = "Task Residual Tuning (TaskRes)"
    year = 2023
    config_class = TaskResConfig
    sees = "fixed features"
    accepts_new_classes = False
    config: TaskResConfig
    residual: nn.Parameter
    base: Tensor | None

    def build(self, generator: torch.Generator) -> None:
        """x (C, D), initially zero; t is computed when first needed, and not saved."""
        super().build(generator)
        self.register_buffer("base", None, persistent=False)
        sizes = len(self.class_names), self.clip.config.embed_dim
        self.residual = nn.Parameter(torch.zeros(sizes, device=self.clip.device))

    def base_features(self) -> Tensor:
        """t: (C, D)."""
        if not self.config.official_base:
            return super().text_features()
        if self.base is None:
            templates = self.config.chosen_templates()
            self.base = unnormalised_features(self.backbone, self.prompt_names, templates, underscores=True)
        return self.base

    def text_features(self) -> Tensor:
        return F.normalize(self.base_features() + self.config.alpha * self.residual, dim=-1)
