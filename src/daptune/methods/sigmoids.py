"""Classes that are judged each by itself, for images with any number of labels: p_c = sigmoid((logits_c + b_c) / T).

Training minimises the binary cross-entropy, averaged over classes and images, without weights for the many absent
classes: the bias b_c starts where the mean probability of a class is its share of the training images (the prior of
Lin, Goyal, Girshick, He & Dollar, ICCV 2017, arXiv 1708.02002, section 3.3) and is learned with the prompts.
The asymmetric loss of Ridnik et al. (ICCV 2021, arXiv 2009.14119) and weighted positives are compared with it in
docs/multi-label.md.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import MethodError

if TYPE_CHECKING:
    from .base import Method

THRESHOLD = 0.5
"""Of a class without validation images that show it."""
UNIT = 10.0
"""Logits of a bias of 1, so that learning rates of prompts suit it."""


class Sigmoids(nn.Module):
    """What turns `logits` into scores of classes by themselves: `scores`, `loss`, and the `thresholds` of a decision.

    bias        (C,), learned with the method unless that learns nothing; in units of `UNIT`
    thresholds  (C,), a class is present from this probability on; not part of `state_dict`
    """

    thresholds: Tensor

    def __init__(self, classes: int, *, learned: bool, device: torch.device) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(classes, device=device), requires_grad=learned)
        self.register_buffer("thresholds", torch.full((classes,), THRESHOLD, device=device), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """logits + b: (B, C) -> (B, C)."""
        return logits + UNIT * self.bias

    def loss(self, logits: Tensor, labels: Tensor, class_weight: Tensor | None = None) -> Tensor:
        """Mean over B and C of a_c BCE(sigmoid(logits + b), labels): (B, C) both, weights a (C,) or 1 -> scalar."""
        terms = F.binary_cross_entropy_with_logits(self(logits.float()), labels.float(), reduction="none")
        return (terms if class_weight is None else class_weight * terms).mean()

    @torch.no_grad()
    def start(self, logits: Tensor, labels: Tensor) -> None:
        """Set b so that each class's mean probability is its share of n images, (n_c + 1/2) / (n + 1): (n, C) both."""
        raw, shares = logits.double(), (labels.double().sum(0) + 0.5) / (len(labels) + 1)
        low, high = -raw.amax(0) - 30, -raw.amin(0) + 30  # the mean probability is 0 and 1 there
        for _ in range(60):
            middle = (low + high) / 2
            less = (raw + middle).sigmoid().mean(0) < shares
            low, high = torch.where(less, middle, low), torch.where(less, high, middle)
        self.bias.copy_((low + high).float() / (2 * UNIT))


def check_multi_label(method: "Method | type[Method]") -> None:
    """Raise MethodError for a method that learns one class per image: by a closed form, or a loss of its own."""
    if not method.multi_label:
        raise MethodError(
            f"{method.name} learns one class per image and cannot learn several labels; use dapt or coop, or leave out "
            "--multi-label."
        )


def judge_by_itself(method: "Method") -> Sigmoids:
    """Let a method judge each class by itself from now on. Raises MethodError as `check_multi_label`."""
    check_multi_label(method)
    classes, learned = len(method.class_names), method.trainable
    method.sigmoids = Sigmoids(classes, learned=learned, device=method.device)
    return method.sigmoids
