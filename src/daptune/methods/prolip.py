"""ProLIP: the projection of the image tower is learned, and held near CLIP's.

Fahes, Vu, Bursuc, Perez & de Charette, "Fine-Tuning CLIP's Last Visual Projector: A Few-Shot Cornucopia", arXiv
2410.05270, section 3. Official: astra-vision/ProLIP methods/ProLIP.py (no licence; written from the formulas).

P is learned as P_0 + R / 100, so that weight decay pulls to CLIP, and rates are of the size of those of prompts: Adam
with the rate 100 r and eps e / 100 on R takes the steps of the rate r and eps e on P. Behind the attention pool of a
residual network the projection has a bias, which stays frozen, as in the official code (VisProjRN).

Differences to the official code: float32 instead of float16, whose spacing is about the size of a step; the frozen
model's own projection is not overwritten; the constraint's 1 / N takes the mean number of images of a class as N.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.towers import VISUAL_PROJECTION
from .base import SupportSet
from .options import Weight
from .zero_shot import ZeroShot, ZeroShotConfig

STEP = 0.01


@dataclass(frozen=True)
class ProLIPConfig(ZeroShotConfig):
    """Options of ProLIP: those of the frozen text classifier, and of the constraint."""

    constraint_weight: Weight = 1.0
    """Weight of the squared distance to CLIP's projection, lambda N."""
    per_shot: bool = True
    """Divide that weight by the mean number of training images of a class, N: lambda = 1 / N, the paper's choice where
    there are no validation images."""


class ProLIP(ZeroShot):
    """z = normalise(h P), h the image before the projection, P learned; + lambda |P - P_0|^2 in the loss."""

    name = "prolip"
    title = "CLIP's visual projector, fine-tuned (ProLIP)"
    year = 2024
    config_class = ProLIPConfig
    sees = "fixed features"
    needs = frozenset({VISUAL_PROJECTION})
    default_lr = 0.1
    multi_label = True
    config: ProLIPConfig
    residual: nn.Parameter
    strength: float
    """lambda, set by `before_fit`."""

    def build(self, generator: torch.Generator) -> None:
        """R (W, D), at first zero."""
        super().build(generator)
        self.residual = nn.Parameter(torch.zeros_like(self.clip.visual.projection(), dtype=torch.float32))
        self.strength = self.config.constraint_weight

    @property
    def encoded_size(self) -> int:
        return self.clip.config.vision_width

    @property
    def joins_ensemble(self) -> bool:
        return False  # it reads `encode` as CLIP's features, which h is not

    def encode_images(self, images: Tensor) -> Tensor:
        """h: (B, 3, R, R) -> (B, W)."""
        return self.clip.encode_image(images, projected=False)

    def image_features(self, images: Tensor) -> Tensor:
        return F.normalize(self.clip.visual.project(self.encode(images), self.visual_projection()), dim=-1)

    def visual_projection(self) -> Tensor:
        """P: (W, D)."""
        return self.clip.visual.projection().float() + STEP * self.residual

    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        shots = len(train.table) / len(self.class_names) if self.config.per_shot else 1.0
        self.strength = self.config.constraint_weight / shots

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        terms = super().losses(images, labels)
        distance = (STEP * self.residual).square().sum()
        total = terms["cross_entropy"] + self.strength * distance
        return {"cross_entropy": terms["cross_entropy"], "distance": distance, "total": total}
