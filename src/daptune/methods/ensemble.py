"""Ensemble: the scores of hand-written prompts, of class statistics and of the learned prompt, added in one pass.

Three sources read the same unit image features z, with the method's visual prompts if it has any:

    text        z w0^T: text features w0 (C, D) of hand-written prompts, as zero-shot CLIP
    support     linear discriminant analysis of the labelled images (discriminant.py); one image a class: nearest mean
    learned     the method's own logits

From the scores of text and learned, `CENTRED` of each class's mean over the support images (classes counting alike) is
subtracted, because both favour some classes. Scores are divided by their standard deviation over images and classes,
after centring each image. The answer is their sum weighted by a.

The weights a come from the labelled images alone: the maximum a posteriori of a multinomial regression of the labels on
the scores, with log a ~ N(0, 1), so that a stays near 1 with few images. Text has not seen the labels: below 1, its
prior is wider (`PRIOR`), so that a few images can speak against it. The support scores leave out the image itself. Such
scores come from fewer images than the final ones, so they are multiplied by (n - 1) / n, n the mean number of images of
a class. The learned prompt was trained on these images and cannot be judged by them: it takes the share `LEARNED` of
the weight of support. Validation images, if there are any, judge all three.

The same images, left out or of validation, say what known images look like: how similar they are to the nearest class
mean, and how probable their true class is. New images are compared with them (`tail_p_values`, `rank_p_values` of
`daptune.metrics`, split conformal prediction): "none of these", and sets of classes that hold the truth.

The constants were chosen on three tasks (`studies/ensemble.py`). Related: GDA (Wang et al., ICLR 2024, arXiv
2402.04087, equation 7) adds discriminant analysis to the text scores with a weight searched on validation images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.backbone import Backbone
from ..clip.pooling import Names
from ..errors import MethodError
from ..metrics import tail_p_values
from .discriminant import Discriminant, Floats, Labels
from .templates import template_features

CENTRED = 0.5
LEARNED = 0.25
PRIOR = (3.0, 1.0, 1.0)
"""Standard deviation of log a below 0 for each of `SOURCES`; above, it is 1: two images that fit are no proof."""
MOST_JUDGED = 4096
"""Support images that the weights are fitted on, evenly spaced; three numbers need no more."""
ROUNDING = 1e-7
"""Accuracy of float32 features: smaller relative differences of scores, as of identical images, mean nothing."""
MOST_KEPT = 255
"""Order statistics of known images that are kept."""
SOURCES = ("text", "support", "learned")


@dataclass(frozen=True)
class Mix:
    """How the sources are mixed, JSON values: a, the weights of `SOURCES`, and the same divided by their spreads.

    `templates` are the hand-written prompts of text.
    """

    a: tuple[float, ...]
    factors: tuple[float, ...]
    templates: tuple[str, ...]
    similarity: tuple[float, ...] = ()
    """Of known images: cosine to the nearest class mean, ascending, at most MOST_KEPT order statistics."""
    truth: tuple[float, ...] = ()
    """Of known images: probability of the true class, likewise."""

    def __post_init__(self) -> None:
        for name, low in (("similarity", -1.01), ("truth", 0)):
            values = getattr(self, name)
            numbers = all(isinstance(v, int | float) and low <= v <= 1.01 for v in values)
            if not numbers or len(values) > MOST_KEPT or list(values) != sorted(values):
                raise MethodError(
                    f"{name}: expected at most {MOST_KEPT} ascending numbers up to 1, found {values!r:.80}"
                )
            object.__setattr__(self, name, tuple(map(float, values)))
        if bool(self.similarity) != bool(self.truth):
            raise MethodError("similarity and truth: expected both or neither, found one")
        for name in ("a", "factors"):
            values = getattr(self, name)
            if len(values) != len(SOURCES) or not all(isinstance(v, int | float) and 0 <= v < math.inf for v in values):
                raise MethodError(f"{name}: expected a number of at least 0 for each of {SOURCES}, found {values!r}")
            object.__setattr__(self, name, tuple(map(float, values)))
        if not self.templates or not all(isinstance(text, str) and text.count("{}") == 1 for text in self.templates):
            raise MethodError(f"templates: expected texts with one {{}}, found {self.templates!r}")
        object.__setattr__(self, "templates", tuple(self.templates))


class Ensemble(nn.Module):
    """scores = z weights^T + bias + factor of learned * logits: z (B, D), logits (B, C) -> (B, C).

    weights (C, D) hold text and support in one matrix; bias (C,); prototypes (P, D) are the unit class means, P = C or,
    for other classes, 0. Matrices are rounded to float16, as they are stored.
    """

    weights: Tensor
    bias: Tensor
    prototypes: Tensor

    def __init__(self, weights: Tensor, bias: Tensor, prototypes: Tensor, mix: Mix) -> None:
        super().__init__()
        most = torch.finfo(torch.float16).max  # where the images of all classes are nearly the same
        self.register_buffer("weights", weights.clamp(-most, most).half().float(), persistent=False)
        self.register_buffer("bias", bias.float(), persistent=False)
        self.register_buffer("prototypes", prototypes.half().float(), persistent=False)
        self.mix = mix

    @classmethod
    def empty(cls, classes: int, size: int, templates: Sequence[str]) -> "Ensemble":
        """One that answers as the method alone, to add scores to."""
        alone = Mix((0.0, 0.0, 1.0), (0.0, 0.0, 1.0), tuple(templates))
        return cls(torch.zeros(classes, size), torch.zeros(classes), torch.zeros(0, size), alone)

    def plus(self, weights: Tensor, bias: Tensor, *, known: bool) -> "Ensemble":
        """The same with scores z weights^T + bias added, (C, D), (C,); statistics of known images stay if `known`."""
        mix = self.mix if known else replace(self.mix, similarity=(), truth=())
        return Ensemble(self.weights + weights, self.bias + bias, self.prototypes, mix)

    def judge_by(self, probabilities: Floats) -> None:
        """Other probabilities of the true classes of known images, (q,), for prediction sets."""
        self.mix = replace(self.mix, truth=_order_statistics(probabilities))

    def similarity(self, features: Tensor) -> Tensor:
        """Cosine of image features of any norm to the nearest class mean: (B, D) -> (B,)."""
        return (F.normalize(features.float(), dim=-1) @ self.prototypes.mT).amax(dim=-1)

    def known(self, features: Tensor) -> Floats | None:
        """p value of the similarity among known images, (B, D) -> (B,); None without their statistics."""
        if not self.mix.similarity:
            return None
        return tail_p_values(self.mix.similarity, self.similarity(features).cpu().numpy())

    def forward(self, z: Tensor, logits: Tensor) -> Tensor:
        return z @ self.weights.mT + self.bias + self.mix.factors[2] * logits

    def with_classes(self, backbone: Backbone, class_names: Names) -> "Ensemble":
        """Text and learned prompt for other classes; support and offsets belong to the old ones and are dropped."""
        mix, w0 = self.mix, template_features(backbone, class_names, self.mix.templates)
        kept = Mix((mix.a[0], 0.0, mix.a[2]), (mix.factors[0], 0.0, mix.factors[2]), mix.templates)
        return Ensemble(mix.factors[0] * w0, w0.new_zeros(len(w0)), w0[:0], kept)


@dataclass(frozen=True, eq=False)
class Seen:
    """Labelled images: unit features z (n, D), the method's logits (n, C), labels (n,)."""

    z: Floats
    logits: Floats
    labels: Labels

    def evenly(self, most: int) -> "Seen":
        """At most `most` of the images, evenly spaced."""
        rows = np.unique(np.linspace(0, len(self.labels) - 1, min(len(self.labels), most)).astype(int))
        return Seen(self.z[rows], self.logits[rows], self.labels[rows])


@dataclass(frozen=True)
class Scale:
    """How raw scores (n, C) of a source become comparable: (raw - offset) / spread."""

    offset: Floats  # (C,)
    spread: float

    @classmethod
    def of(cls, raw: Floats, labels: Labels) -> Self:
        """For a source that may favour some classes."""
        present = np.unique(labels)
        offset = CENTRED * np.mean([raw[labels == c].mean(axis=0) for c in present], axis=0)
        return cls(offset, spread_of(raw - offset))

    def __call__(self, raw: Floats) -> Floats:
        return (raw - self.offset) / self.spread


def fit_ensemble(support: Seen, w0: Floats, val: Seen | None = None, *, templates: Sequence[str]) -> Ensemble:
    """The ensemble for labelled support images and text features w0 (C, D), made from `templates`."""
    classes, some = len(w0), support.evenly(MOST_JUDGED)
    found = Discriminant.fit(support.z, support.labels, classes)
    held_out = found.left_out(some.z, some.labels)
    judged = ~np.isnan(held_out[:, 0])
    if judged.any():
        spread = spread_of(held_out[judged])
    else:  # how well an image fits its own mean says nothing: the scores of the other classes
        spread = spread_of(np.ma.masked_array(found(support.z), np.arange(classes) == support.labels[:, None]))
    text, learned = Scale.of(support.z @ w0.T, support.labels), Scale.of(support.logits, support.labels)
    scales = (text, Scale(np.zeros(classes), spread), learned)
    fewer = (len(support.labels) - classes) / len(support.labels)
    held_out = np.where(judged[:, None], held_out * max(fewer, 0.0), 0.0)
    rows = np.stack([text(some.z @ w0.T), held_out / spread, np.zeros_like(held_out)])
    if val is None:
        a = _posterior_mode(rows, some.labels)
        probabilities, labels = _softmax(a, rows)[judged], some.labels[judged]
        similarity = found.nearest(some.z, some.labels)[judged]
        a[1:] = (1 - LEARNED) * a[1], LEARNED * a[1]
    else:
        raw = (val.z @ w0.T, found(val.z), val.logits)
        own = np.stack([scale(scores) for scale, scores in zip(scales, raw, strict=True)])
        a = _posterior_mode(np.concatenate([rows, own], axis=1), np.concatenate([some.labels, val.labels]))
        probabilities, labels, similarity = _softmax(a, own), val.labels, found.nearest(val.z)
    factors = a / [scale.spread for scale in scales]
    weights = factors[0] * w0 + factors[1] * found.weights
    bias = factors[1] * found.bias - factors[0] * text.offset - factors[2] * learned.offset
    mix = Mix(
        a=tuple(a.tolist()),
        factors=tuple(factors.tolist()),
        templates=tuple(templates),
        similarity=_order_statistics(similarity),
        truth=_order_statistics(probabilities[np.arange(len(labels)), labels]),
    )
    return Ensemble(
        torch.from_numpy(weights - weights.mean(axis=0)),  # the same for all classes: changes no probability
        torch.from_numpy(bias - bias.mean()),
        torch.from_numpy(found.directions),
        mix,
    )


def _order_statistics(values: Floats) -> tuple[float, ...]:
    """At most MOST_KEPT of the values, ascending, at even ranks."""
    kept = min(len(values), MOST_KEPT)
    ranks = np.linspace(0, len(values) - 1, kept).round().astype(int)
    return tuple(np.sort(values)[ranks].round(5).tolist())


def _softmax(a: Floats, scores: Floats) -> Floats:
    from scipy.special import softmax  # a dependency of scikit-learn

    found: Floats = softmax(np.tensordot(a, scores, 1), axis=1)
    return found


def _posterior_mode(scores: Floats, labels: Labels) -> Floats:
    """a (S,) that maximises sum_i log softmax(sum_s a_s scores_s)_yi + log p(a): scores (S, n, C), labels (n,)."""
    from scipy.optimize import minimize  # a dependency of scikit-learn
    from scipy.special import log_softmax

    rows = np.arange(len(labels))
    right = scores[:, rows, labels]  # (S, n)

    def loss(log_a: Floats) -> tuple[float, Floats]:
        a = np.exp(log_a)
        logs = log_softmax(np.tensordot(a, scores, 1), axis=1)
        expected = (np.exp(logs) * scores).sum(axis=2)  # (S, n)
        spread = np.where(log_a < 0, PRIOR, 1.0)
        far = log_a / spread
        return -logs[rows, labels].sum() + far @ far / 2, a * (expected - right).sum(axis=1) + far / spread

    found: Floats = np.exp(minimize(loss, np.zeros(len(scores)), jac=True, method="L-BFGS-B").x)
    return found


def spread_of(scores: Floats) -> float:
    """Standard deviation of scores (n, C) about the mean of each image; 1 if all are equal up to rounding."""
    deviation = float((scores - scores.mean(axis=1, keepdims=True)).std())
    return deviation if deviation > ROUNDING * float(np.abs(scores).max()) else 1.0
