"""Ensemble: the scores of hand-written prompts, of class statistics and of the learned prompt, added in one pass.

Three sources read the same unit image features z, with the method's visual prompts if it has any:

    text        z w0^T: text features w0 (C, D) of hand-written prompts, as zero-shot CLIP
    support     linear discriminant analysis of the labelled images (discriminant.py); one image a class: nearest mean
    learned     the method's own logits

From the scores of text and learned, `CENTRED` of each class's mean over the support images (classes counting alike) is
subtracted, because both favour some classes. Scores are divided by their standard deviation over images and classes,
after centring each image. The answer is their sum weighted by a.

The weights a come from the labelled images alone, by the maximum a posteriori of a multinomial regression of the labels
on the scores with log a ~ N(0, 1): on one image a class, a stays near 1. Text has not seen the labels, and the support
scores leave out the image itself. Because such scores come from fewer images than the final ones, they are multiplied by
(n - 1) / n, n the mean number of images of a class. The learned prompt was trained on these images and cannot be judged
by them: it takes the share `LEARNED` of the weight of support. Validation images, if there are any, judge all three.

The constants were chosen in the study of docs/ensemble.md. Related: GDA (Wang et al., ICLR 2024, arXiv 2402.04087,
equation 7) adds discriminant analysis to the text scores with a weight searched on validation images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from .discriminant import Discriminant, Floats, Labels

CENTRED = 0.5
LEARNED = 1 / 3
MOST_JUDGED = 4096
"""Support images that the weights are fitted on, evenly spaced; three numbers need no more."""
SOURCES = ("text", "support", "learned")


class Ensemble(nn.Module):
    """scores = z weights^T + bias + learned * logits: (B, D), (B, C) -> (B, C).

    weights   (C, D), text and support in one matrix, exact in float16; bias (C,)
    learned   factor of the method's logits; text: that of z w0^T, for other classes
    a         weights of `SOURCES`, for people
    """

    weights: Tensor
    bias: Tensor

    def __init__(self, weights: Tensor, bias: Tensor, *, learned: float, text: float, a: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights", weights.half().float(), persistent=False)
        self.register_buffer("bias", bias.float(), persistent=False)
        self.learned, self.text, self.a = float(learned), float(text), tuple(float(value) for value in a)

    def forward(self, z: Tensor, logits: Tensor) -> Tensor:
        return z.float() @ self.weights.mT + self.bias + self.learned * logits

    def with_classes(self, w0: Tensor) -> "Ensemble":
        """Text and learned prompt for other classes with text features w0 (C', D); what belongs to the old is dropped."""
        a = (self.a[0], 0.0, self.a[2])
        return Ensemble(self.text * w0, w0.new_zeros(len(w0)), learned=self.learned, text=self.text, a=a)


@dataclass(frozen=True, eq=False)
class Seen:
    """Labelled images: unit features z (n, D), the method's logits (n, C), labels (n,)."""

    z: Floats
    logits: Floats
    labels: Labels


@dataclass(frozen=True)
class _Scale:
    """How raw scores (n, C) of a source become comparable: (raw - offset) / spread."""

    offset: Floats  # (C,)
    spread: float

    @classmethod
    def of(cls, raw: Floats, labels: Labels) -> Self:
        """For a source that may favour some classes."""
        present = np.unique(labels)
        offset = CENTRED * np.mean([raw[labels == c].mean(axis=0) for c in present], axis=0)
        return cls(offset, _spread(raw - offset))

    def __call__(self, raw: Floats) -> Floats:
        return (raw - self.offset) / self.spread


def fit_ensemble(support: Seen, w0: Floats, val: Seen | None = None) -> Ensemble:
    """The ensemble for labelled support images and text features w0 (C, D)."""
    classes, labels = len(w0), support.labels
    found = Discriminant.fit(support.z, labels, classes)
    some = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), MOST_JUDGED)).astype(int))
    held_out = found.left_out(support.z[some], labels[some])
    known = ~np.isnan(held_out[:, 0])
    if known.any():
        spread = _spread(held_out[known])
    else:  # how well an image fits its own mean says nothing: the scores of the other classes
        spread = _spread(np.ma.masked_array(found(support.z), np.arange(classes) == labels[:, None]))
    text, learned = _Scale.of(support.z @ w0.T, labels), _Scale.of(support.logits, labels)
    scales = (text, _Scale(np.zeros(classes), spread), learned)
    fewer = (len(labels) - classes) / len(labels)
    held_out = np.where(known[:, None], held_out * max(fewer, 0.0), 0.0)
    rows = [text(support.z[some] @ w0.T), held_out / spread, np.zeros_like(held_out)]
    truth = labels[some]
    if val is not None:
        raw = (val.z @ w0.T, found(val.z), val.logits)
        rows = [np.concatenate([row, scale(own)]) for row, scale, own in zip(rows, scales, raw, strict=True)]
        truth = np.concatenate([truth, val.labels])
    a = _posterior_mode(np.stack(rows), truth)
    if val is None:
        a[1:] = (1 - LEARNED) * a[1], LEARNED * a[1]
    factors = a / [scale.spread for scale in scales]
    weights = factors[0] * w0 + factors[1] * found.weights
    bias = factors[1] * found.bias - factors[0] * text.offset - factors[2] * learned.offset
    return Ensemble(
        torch.from_numpy(weights - weights.mean(axis=0)),  # the same for all classes: changes no probability
        torch.from_numpy(bias - bias.mean()),
        learned=factors[2],
        text=factors[0],
        a=a,
    )


def _posterior_mode(scores: Floats, labels: Labels) -> Floats:
    """a (S,) that maximises sum_i log softmax(sum_s a_s scores_s)_yi - |log a|^2 / 2: scores (S, n, C), labels (n,)."""
    from scipy.optimize import minimize  # a dependency of scikit-learn
    from scipy.special import log_softmax

    rows = np.arange(len(labels))
    right = scores[:, rows, labels]  # (S, n)

    def loss(log_a: Floats) -> tuple[float, Floats]:
        a = np.exp(log_a)
        logs = log_softmax(np.tensordot(a, scores, 1), axis=1)
        expected = (np.exp(logs) * scores).sum(axis=2)  # (S, n)
        return -logs[rows, labels].sum() + log_a @ log_a / 2, a * (expected - right).sum(axis=1) + log_a

    found: Floats = np.exp(minimize(loss, np.zeros(len(scores)), jac=True, method="L-BFGS-B").x)
    return found


def _spread(scores: Floats) -> float:
    """Standard deviation of scores (n, C) about the mean of each image; 1 if all are equal."""
    deviation = float((scores - scores.mean(axis=1, keepdims=True)).std())
    return deviation if deviation > 0 else 1.0
