"""TaskRes: a learned residual on the text classifier; both towers are used once and left alone.

Yu et al., "Task Residual for Tuning Vision-Language Models", CVPR 2023, arXiv 2211.10277, section 3.2. Official:
geekyutao/TaskRes trainers/taskres.py (TaskRes-Text on the regular base).

Differences to the official code: its base is the mean of text features that keep their length (about 10 with OpenAI's
weights, against which a residual weighs a tenth), of class names that keep their "_"; ours is zero-shot CLIP's class
weights, of length 1. `official_base` gives theirs, and the paper's preset sets it: alpha and the learning rate were
chosen with it. Theirs is enlarged by one more template for each model built in a process on ImageNet; ours never is.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .options import Fits
from .zero_shot import ZeroShot, ZeroShotConfig


@dataclass(frozen=True)
class TaskResConfig(ZeroShotConfig):
    """Options of TaskRes: those of the base classifier, and of the residual."""

    alpha: Annotated[float, Fits(bool, "a number other than 0, or nothing is learned")] = 0.5
    """Weight of the residual."""
    official_base: bool = False
    """Base of the official code: the mean over templates of text features of their own length, "_" in names kept."""


class TaskRes(ZeroShot):
    """w_c = normalise(t_c + alpha x_c), t the frozen base, x learned, a row for each class."""

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
        """x (C, D), zero at first; t is computed when first asked for, and not saved."""
        super().build(generator)
        self.register_buffer("base", None, persistent=False)
        sizes = len(self.class_names), self.clip.config.embed_dim
        self.residual = nn.Parameter(torch.zeros(sizes, device=self.clip.device))

    def base_features(self) -> Tensor:
        """t: (C, D)."""
        if not self.config.official_base:
            return super().text_features()
        if self.base is None:
            self.base = self._official_base()
        return self.base

    def text_features(self) -> Tensor:
        """Unit class weights: (C, D)."""
        return F.normalize(self.base_features() + self.config.alpha * self.residual, dim=-1)

    @torch.inference_mode(False)  # the result takes part in training later
    @torch.no_grad()
    def _official_base(self) -> Tensor:
        features = []
        for template in self.config.chosen_templates():
            texts = [template.replace("{}", name) for name in self.class_names]
            features.append(self.clip.encode_text(self.backbone.tokenizer(texts).to(self.clip.device)))
        return torch.stack(features).mean(0)
