"""ZS-LP: a linear probe that starts at the text features of the classes and has no bias.

Silva-Rodriguez, Hajimiri, Ben Ayed & Dolz, "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models",
CVPR 2024, arXiv 2312.12730, section 4.1. Official: jusiro/CLAP trainers/adapters.py ("ZS", constraint "none").

Class weights are learned as t + x, x zero at first: the same steps as on w, and weight decay then pulls to the text.

Differences to the official code: the text features t are scaled together to a mean length of 10, about that of OpenAI's
weights, because the step size and CLAP's constraint belong to that length; "_" in class names is a blank. The features
of the backbone's own length with "_" are `official_base`, as in the paper's preset. The list of templates of ImageNet
does not grow with each model.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .templates import unnormalised_features
from .zero_shot import ZeroShot, ZeroShotConfig

LENGTH = 10.0


@dataclass(frozen=True)
class ZSLPConfig(ZeroShotConfig):
    """Options of ZS-LP: those of the text features that it starts from."""

    official_base: bool = False
    """Start of the official code: text features of the backbone's own length, with "_" kept in class names."""


class ZSLP(ZeroShot):
    """w_c = normalise(t_c + x_c), t the text features, not normalised, x learned from zero."""

    name = "zs_lp"
    title = "Zero-shot initialised linear probe (ZS-LP)"
    year = 2024
    config_class = ZSLPConfig
    sees = "fixed features"
    accepts_new_classes = False
    config: ZSLPConfig
    residual: nn.Parameter
    base: Tensor | None

    def build(self, generator: torch.Generator) -> None:
        """x (C, D), zero; t is computed when first needed, and not saved."""
        super().build(generator)
        self.register_buffer("base", None, persistent=False)
        sizes = len(self.class_names), self.clip.config.embed_dim
        self.residual = nn.Parameter(torch.zeros(sizes, device=self.clip.device))

    def base_features(self) -> Tensor:
        """t: mean over templates of text features that are not normalised, (C, D)."""
        if self.base is None:
            official, templates = self.config.official_base, self.config.chosen_templates()
            base = unnormalised_features(self.backbone, self.prompt_names, templates, underscores=official)
            self.base = base if official else base * (LENGTH / base.norm(dim=-1).mean())
        return self.base

    def text_features(self) -> Tensor:
        return F.normalize(self.base_features() + self.residual, dim=-1)
