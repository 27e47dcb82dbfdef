"""Nearest prototype: predict the class whose mean of frozen image features is nearest.

Snell, Swersky & Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017, arXiv 1703.05175, section 2.
Official: jakesnell/prototypical-networks protonets/models/few_shot.py, which trains the encoder over episodes. Here
the encoder is CLIP's, frozen: equations (1) and (2) are the whole method.

Differences to the official code: with `normalize`, features are unit vectors and logits have CLIP's scale.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Method, SupportSet
from .options import MethodConfig, Views, one_of
from .support import class_means


@dataclass(frozen=True)
class PrototypeConfig(MethodConfig):
    metric: Annotated[str, one_of(("euclidean", "cosine"))] = "euclidean"
    """euclidean (squared, as in the paper) or cosine."""
    normalize: bool = True
    """Normalise image features before averaging and comparing; off: the paper's logits."""
    views: Views = 0
    """Augmented views averaged in a prototype; 0: the evaluation transform."""


class Prototype(Method):
    """logits_c = -|f - s_c|^2, s_c the mean over the images of class c of their features f."""

    name = "prototype"
    title = "Nearest prototype (ProtoNet on frozen features)"
    year = 2017
    config_class = PrototypeConfig
    accepts_new_classes = False
    sees = "features"
    config: PrototypeConfig
    prototypes: Tensor

    def build(self, generator: torch.Generator) -> None:
        """s (C, D), zero until `before_fit`."""
        size = len(self.class_names), self.clip.config.embed_dim
        self.register_buffer("prototypes", torch.zeros(size, device=self.clip.device))

    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        self.prototypes = class_means(self, train, self.config.views, unit=self.config.normalize)

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, R, R) -> (B, C).

        cosine: exp(logit_scale) cos(f, s_c). euclidean: -|f - s_c|^2; with `normalize`, times exp(logit_scale) / 2,
        which is exp(logit_scale) f . s_c plus a constant if |s_c| = 1.
        """
        f, s = self.encode(images), self.prototypes
        if self.config.metric == "cosine":
            return self.scale * F.normalize(f, dim=-1) @ F.normalize(s, dim=-1).mT
        if self.config.normalize:
            f = F.normalize(f, dim=-1)
        squared = f.square().sum(-1, keepdim=True) - 2 * f @ s.mT + s.square().sum(-1)  # |f - s|^2 without (B, C, D)
        return -self.scale / 2 * squared if self.config.normalize else -squared
