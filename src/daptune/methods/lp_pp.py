"""LP++: a linear probe initialised with class sums, plus text features with a learned weight per class.

Huang et al., "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP", CVPR 2024, arXiv 2404.02285, sections 3-4.
Official: FereshteShakeri/FewShot-CLIP-Strong-Baseline methods/linear_probe_p2.py. Initial values and step sizes are
functions of the data; there is no temperature. `before_fit` does all the work, on features that are computed once.

Differences to the official code: it never clears the gradient of alpha, so that each step on alpha uses the sum of all
gradients since the start (`official_alpha`); here each step uses only its own gradient. The bias starts at 0 instead
of random values; float32 replaces float16; classes may have different numbers of images. Both keep the latest of the
steps that are best on validation images; without validation images, the last step is kept.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import SupportSet
from .options import Fits, Views, at_least
from .support import check_labels, class_sums, encode_batches, one_hot, view_features
from .zero_shot import ZeroShot, ZeroShotConfig

ALPHA_EVERY = 10  # steps on V and b per step on alpha


@dataclass(frozen=True)
class LPPPConfig(ZeroShotConfig):
    """Options of LP++: those of the text classifier, and of the optimisation."""

    steps: Annotated[int, at_least(0, "0 (the initial values) or more steps")] = 300
    """Full-batch steps."""
    views: Views = 1
    """Augmented views averaged in a feature; 0: the evaluation transform."""
    momentum: Annotated[float, Fits(lambda x: 0 <= x < 1, "a number from 0 to below 1")] = 0.9
    """Momentum of the steps on V and b."""
    alpha_scale: float = 250.0
    """Initial alpha, in units of the mean similarity of images and the text of their class."""
    official_alpha: bool = False
    """Update alpha with the sum of all gradients so far, as in the official code."""


class LPPP(ZeroShot):
    """logits = z V^T + b + alpha (z W^T): z unit image features, W the text features, alpha one weight per class."""

    name = "lp_pp"
    title = "LP++"
    year = 2024
    config_class = LPPPConfig
    accepts_new_classes = False
    uses_validation = True
    weighs_classes = True
    sees = "features"
    config: LPPPConfig
    weight: Tensor
    bias: Tensor
    alpha: Tensor

    def build(self, generator: torch.Generator) -> None:
        """V (C, D), b (C,) and alpha (C,), zero until `before_fit`."""
        super().build(generator)
        classes, width = len(self.class_names), self.clip.config.embed_dim
        for name, size in {"weight": (classes, width), "bias": (classes,), "alpha": (classes,)}.items():
            self.register_buffer(name, torch.zeros(size, device=self.clip.device))

    def logits(self, images: Tensor) -> Tensor:
        z = self.image_features(images)
        return self._logits(z, z @ self.text_features().mT)

    def _logits(self, z: Tensor, similarity: Tensor) -> Tensor:
        return F.linear(z, self.weight, self.bias) + self.alpha * similarity

    @torch.no_grad()
    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        features, labels = view_features(self.clip, train, self.config.views, unit=True)
        counts = check_labels(self.name, labels, self.class_names)
        z = features if self.config.views <= 1 else F.normalize(features, dim=-1)  # (n, D)
        w = self.text_features()
        similarity, truth, n = z @ w.mT, one_hot(labels, len(w)), len(z)  # (n, C) both
        weights = torch.ones_like(counts, dtype=z.dtype) if self.class_weight is None else self.class_weight
        share = weights[labels].unsqueeze(1)  # (n, 1)
        held_out = None if val is None else encode_batches(self.image_features, val.evaluation(), self.clip.device)

        self.weight, self.bias = class_sums(z, labels, len(w)), torch.zeros_like(self.bias)
        own = (truth * similarity).sum(0) / counts  # mean similarity of a class's images to its text
        self.alpha = torch.full_like(self.alpha, self.config.alpha_scale * own.mean().item())
        rate = 4 * n / torch.linalg.eigvalsh(z.mT @ (share * z))[-1]
        alpha_rate = n / (4 * (share * similarity.square()).sum(0).max())

        speed_v, speed_b, summed = (torch.zeros_like(each) for each in self._copy())
        best, kept = -1.0, self._copy()
        for step in range(1, self.config.steps + 1):
            error = share * (self._logits(z, similarity).softmax(-1) - truth) / n  # gradient in the logits, (n, C)
            speed_v = self.config.momentum * speed_v + error.mT @ z
            speed_b = self.config.momentum * speed_b + error.sum(0)
            slope = (error * similarity).sum(0)
            summed = summed + slope
            self.weight, self.bias = self.weight - rate * speed_v, self.bias - rate * speed_b
            if step % ALPHA_EVERY == 0:
                self.alpha = self.alpha - alpha_rate * (summed if self.config.official_alpha else slope)
            if held_out is not None:
                hits = held_out[1][self._logits(held_out[0], held_out[0] @ w.mT).argmax(-1) == held_out[1]]
                right = float(weights[hits].sum())
                if right >= best:
                    best, kept = right, self._copy()
        if best >= 0:
            self.weight, self.bias, self.alpha = kept

    def _copy(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weight, self.bias, self.alpha  # replaced by each step, never changed in place
