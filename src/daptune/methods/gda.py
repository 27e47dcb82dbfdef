"""GDA: Gaussian discriminant analysis of image features, added to the zero-shot classifier; no gradient steps.

Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", ICLR 2024, arXiv 2402.04087, section 3.
Official: mrflogs/ICLR24 main_few_shots.py, main_base2new.py (no licence; written from the formulas).

Differences to the official code: the views of an image count as one image in the shrinkage (`official_count`); the
covariance of base-to-new is shrunk too (`official_covariance`); without validation images, alpha comes from
cross-validation; where the images of each class are the same, a warning says that the answer is zero-shot CLIP's.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..data.fewshot import stratified_folds
from .base import SupportSet
from .discriminant import Floats, Labels
from .gaussian import NO_SCATTER, Trial, best_alpha, fit_gaussian, rows_for, rows_of
from .linear_probe import GRID
from .options import Positive, Views
from .support import check_labels, double, encode_batches, stacked_views
from .zero_shot import ZeroShot, ZeroShotConfig

FOLDS = 5
FITTED = ("weight", "bias", "vectors", "texts")  # the last two with `new_classes`


@dataclass(frozen=True)
class GDAConfig(ZeroShotConfig):
    """Options of GDA: those of the zero-shot classifier, and of the discriminant analysis."""

    views: Views = 10
    """Augmented views of an image, kept apart; 0: the evaluation transform."""
    alphas: Annotated[tuple[float, ...], GRID] = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
    """Weights of the discriminant scores to compare, by validation images or cross-validation."""
    alpha: Positive = 0.01
    """Their weight where nothing can be compared: one image a class and no validation images."""
    new_classes: bool = False
    """Keep the features of the training images, so that classes without images may be named later."""
    official_count: bool = False
    """Count every view as an image of its own, which lessens the shrinkage."""
    official_covariance: bool = False
    """Base-to-new precision of the official code: pseudo-inverse of the mean of the classes' covariances."""

    @property
    def per_class(self) -> bool:
        return not self.new_classes


class GDA(ZeroShot):
    """logits = exp(logit_scale) z t^T + alpha (z W + b), W = P mu, b = -mu P mu / 2, P a shrunk precision."""

    name = "gda"
    title = "Gaussian discriminant analysis (GDA)"
    year = 2024
    config_class = GDAConfig
    uses_validation = True
    sees = "features"
    config: GDAConfig

    def build(self, generator: torch.Generator) -> None:
        """W^T (C, D), b (C,), zero until `before_fit`; alpha; with `new_classes` vectors (N, D) and texts (C, D)."""
        super().build(generator)
        classes, size = len(self.class_names), self.clip.config.embed_dim
        shapes = {"weight": (classes, size), "bias": (classes,), "vectors": (0, size), "texts": (0, size)}
        self._hold(**{name: torch.zeros(shapes[name]) for name in FITTED[: 4 if self.config.new_classes else 2]})
        self._hold(alpha=torch.tensor(self.config.alpha))

    def _hold(self, **tensors: Tensor) -> None:
        self._rows: list[Tensor] = []
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.float().to(self.clip.device))

    def make_room(self, state_dict: Mapping[str, Tensor]) -> None:
        for name in state_dict.keys() & FITTED if self.config.new_classes else ():
            if (shape := state_dict[name].shape) and shape[1:] == self.get_buffer(name).shape[1:]:
                self._hold(**{name: torch.zeros(shape)})

    def logits(self, images: Tensor) -> Tensor:
        z, (weight, bias) = self.image_features(images), self.rows()
        return self.scale * z @ self.text_features().mT + self.get_buffer("alpha") * (z @ weight.mT + bias)

    def rows(self) -> list[Tensor]:
        """W^T (C, D) and b (C,), those of `rows_for` for classes other than the fit's."""
        if not self.config.new_classes or not len(self.get_buffer("texts")):
            return [self.get_buffer("weight"), self.get_buffer("bias")]
        if not self._rows:
            parts = (double(tensor) for tensor in (self.text_features(), *map(self.get_buffer, FITTED)))
            self._rows = [torch.from_numpy(found).float().to(self.clip.device) for found in rows_for(*parts)]
        return self._rows

    @torch.no_grad()
    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        config, classes = self.config, len(self.class_names)
        features, labels = stacked_views(self.clip, train, config.views, unit=True)  # (V, n, D)
        most = int(check_labels(self.name, labels, self.class_names).max())
        x, y, settings = double(features), labels.cpu().numpy(), (config.official_count, config.official_covariance)
        found, trials = fit_gaussian(x, y, classes, *settings), list[Trial]()
        if not found.precision.any():
            logging.getLogger("daptune").warning(NO_SCATTER)
        if val is not None:
            trials = [(found, *self._judged(val))]
        elif most > 1:
            z, logits, _ = self._judged(train)
            for kept, out in stratified_folds(train.table, min(FOLDS, most), self.seed):
                trials.append((fit_gaussian(x[:, kept], y[kept], classes, *settings), z[out], logits[out], y[out]))
        weight, bias = map(torch.from_numpy, rows_of(found, centred=not config.new_classes))
        self._hold(weight=weight, bias=bias, alpha=torch.tensor(best_alpha(config.alphas, trials, config.alpha)))
        if config.new_classes:
            self._hold(vectors=features.flatten(0, 1), texts=self.text_features())

    def _judged(self, images: SupportSet) -> tuple[Floats, Floats, Labels]:
        """Unit features (m, D), zero-shot logits (m, C) and labels (m,), by the evaluation transform."""
        z, labels = encode_batches(self.image_features, images.evaluation(), self.clip.device)
        return double(z), double(self.scale * z @ self.text_features().mT), labels.cpu().numpy()
