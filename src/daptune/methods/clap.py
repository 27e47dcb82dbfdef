"""CLAP: ZS-LP whose class weights are held near the text, each class as firmly as zero-shot CLIP is sure of it.

Silva-Rodriguez, Hajimiri, Ben Ayed & Dolz, "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models",
CVPR 2024, arXiv 2312.12730, section 4.2. Official: jusiro/CLAP trainers/adapters.py ("ZS", constraint "l2").

As in the official code, the multipliers are set once, before training; its option for later updates, which no script of
it uses, is not included. Differences to it: a class without images has the multiplier 1 instead of NaN, and stays at
its text; see also `daptune.methods.zs_lp`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import SupportSet
from .options import Views, Weight
from .support import check_labels, class_sums, each_view
from .zs_lp import ZSLP, ZSLPConfig


@dataclass(frozen=True)
class CLAPConfig(ZSLPConfig):
    """Options of CLAP: those of ZS-LP, and of the constraint."""

    constraint_weight: Weight = 1.0
    """Weight of the constraint in the loss."""
    multiplier_views: Views = 4
    """Augmented views in a multiplier; 0: the evaluation transform. Replaced by the views of training, if it returns to
    them (--views)."""


class CLAP(ZSLP):
    """loss = cross-entropy + mean over classes of lambda_c |x_c|^2, lambda_c the zero-shot probability of class c."""

    name = "clap"
    title = "Class-Adaptive Linear Probe (CLAP)"
    year = 2024
    config_class = CLAPConfig
    config: CLAPConfig
    multipliers: Tensor
    """lambda (C,), set by `before_fit`; not saved, since only training uses it."""

    def build(self, generator: torch.Generator) -> None:
        super().build(generator)
        ones = torch.ones(len(self.class_names), device=self.clip.device)
        self.register_buffer("multipliers", ones, persistent=False)

    @torch.no_grad()
    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        """lambda_c: mean over views and images of class c of softmax(exp(logit_scale) z w^T)_c, w the text."""
        w, total, seen = F.normalize(self.base_features(), dim=-1), torch.zeros_like(self.multipliers), 0
        counts = torch.ones_like(total)
        for z, labels in each_view(self.clip, train, self.config.multiplier_views, unit=True, as_trained=True):
            counts = check_labels(self.name, labels, self.class_names, all_classes=False)
            sums = class_sums((self.scale * z @ w.mT).softmax(-1), labels, len(w))  # (C, C)
            total, seen = total + sums.diagonal(), seen + 1
        self.multipliers = torch.where(counts > 0, total / (seen * counts.clamp(min=1)), 1.0)

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        terms = super().losses(images, labels)
        constraint = (self.multipliers * self.residual.square().sum(-1)).mean()
        total = terms["cross_entropy"] + self.config.constraint_weight * constraint
        return {"cross_entropy": terms["cross_entropy"], "constraint": constraint, "total": total}
