"""Zero-shot CLIP: class weights are the text features of hand-written prompts; nothing is learned.

Radford et al. 2021, arXiv 2103.00020, section 3.1. Official: KaiyangZhou/CoOp trainers/zsclip.py (ZeroshotCLIP, and
ZeroshotCLIP2 for the ensemble).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Method
from .options import MethodConfig, Templates
from .templates import choose_templates, find_dataset, template_features


@dataclass(frozen=True)
class ZeroShotConfig(MethodConfig):
    """Options of the zero-shot classifier."""

    templates: Templates = ()
    """Your own prompts, each with one {} for the class name; several are averaged. Empty: see the next two."""
    dataset: str = ""
    """Use the template of this benchmark data set (EuroSAT: "a centered satellite photo of {}."). Empty: "a photo of a
    {}."."""
    ensemble: bool = False
    """Average the seven templates selected on ImageNet and the data set's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen = not self.templates or not (self.dataset or self.ensemble)
        self.require("templates", chosen, "none beside dataset or ensemble (choose one of the two)")
        if self.dataset:
            find_dataset(self.dataset)

    def chosen_templates(self) -> tuple[str, ...]:
        return self.templates or choose_templates(self.dataset, self.ensemble)


class ZeroShot(Method):
    """w_c = normalise(mean over templates of normalise(text("... class c ...")))."""

    name = "zero_shot"
    title = "Zero-shot CLIP"
    year = 2021
    config_class: ClassVar[type[ZeroShotConfig]] = ZeroShotConfig
    config: ZeroShotConfig
    class_weights: Tensor | None

    def build(self, generator: torch.Generator) -> None:
        self.register_buffer("class_weights", None, persistent=False)

    def text_features(self) -> Tensor:
        if self.class_weights is None:
            self.class_weights = template_features(self.backbone, self.prompt_names, self.config.chosen_templates())
        return self.class_weights
