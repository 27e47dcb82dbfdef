"""Training labels that are probably wrong, how many there are, and how many would seem so if all were right.

Images are classified as by an ensemble (ensemble.py) of hand-written prompts and of the labelled images, each left out
of the class statistics: on frozen CLIP features, so that nothing has learned the label of the image and one rule serves
every method. The probability of a class, p_i(c) = softmax(a . scores_i)_c, is that of a right label. Given labels y are
right with probability 1 - noise and else drawn evenly from the C classes:

    P(y_i) = (1 - noise) p_i(y_i) + noise / C                                                (symmetric label noise)

The weights a and the noise maximise the likelihood of all labels with the prior of the ensemble, log a ~ N(0, 1), and
as if `RIGHT` more labels were known to be right. Without the noise, wrong labels would make p too flat.

By Bayes' rule a label is wrong with probability (noise / C) / P(y_i). It is flagged if that is above 1/2, so if

    p_i(y_i) < noise / (C (1 - noise)),

hence labels in the order of their own probability are in the order of suspicion. If all labels were right, y_i ~ p_i
independently, the expected number of flags would be the sum of all p_i(c) below this threshold.

Related: Northcutt, Jiang & Chuang, "Confident Learning" (JAIR 2021, arXiv 1911.00068), section 3.2, also ranks labels
by their own left-out probability (self-confidence).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .discriminant import Discriminant, Floats, Labels
from .ensemble import MOST_JUDGED, Scale, spread_of

RIGHT = 10
"""Labels that the prior of the noise counts as right."""
STARTS = (-3.0, -0.5)
"""Logits of the noise that the search starts from: 5 and 38 %."""
BLOCK = 4096
"""Images whose probabilities are in memory at a time."""


@dataclass(frozen=True, eq=False)
class LabelCheck:
    """What is known of n labels.

    given        the labels (n,)
    own          their probabilities (n,); NaN for an image alone in its class, which is not checked
    likely       the most probable classes (n,)      likely_own   their probabilities (n,)
    noise        estimated share of labels that are drawn evenly from the classes, 0 to 1
    threshold    a label is flagged if its probability is below
    expected     number of flags to expect if all labels were right
    """

    given: Labels
    own: Floats
    likely: Labels
    likely_own: Floats
    noise: float
    threshold: float
    expected: float
    classes: int

    @property
    def order(self) -> NDArray[np.int64]:
        """The rows that were checked, lowest probability of the label first."""
        rows = np.argsort(self.own, kind="stable")  # NaN comes last
        return rows[: self.checked].astype(np.int64)

    @property
    def checked(self) -> int:
        return int((~np.isnan(self.own)).sum())

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """Whether each label is more probably wrong than right, (n,)."""
        return self.own < self.threshold

    @property
    def wrong(self) -> float:
        """Estimated number of wrong labels; one in C labels that are drawn evenly is right."""
        return self.noise * self.checked * (self.classes - 1) / self.classes


def judge_labels(z: Floats, labels: Labels, w0: Floats) -> LabelCheck:
    """Check labels (n,) of images with unit features z (n, D), by unit text features w0 (C, D) of the classes."""
    classes, rows = len(w0), np.arange(len(labels))
    own, likely_own = np.full(len(labels), np.nan), np.full(len(labels), np.nan)
    likely, expected = labels.copy(), 0.0
    alone = np.bincount(labels, minlength=classes)[labels] < 2
    checked = rows[~alone]
    if classes < 2 or not len(checked):
        return LabelCheck(labels, own, likely, likely_own, 0.0, 0.0, 0.0, classes)
    found, text = Discriminant.fit(z, labels, classes), Scale.of(z @ w0.T, labels)

    def raw(chosen: Labels) -> tuple[Floats, Floats]:
        return text(z[chosen] @ w0.T), found.left_out(z[chosen], labels[chosen])

    some = checked[np.unique(np.linspace(0, len(checked) - 1, min(len(checked), MOST_JUDGED)).astype(int))]
    by_text, left_out = raw(some)
    spread = spread_of(left_out)
    a, noise = _fit(np.stack([by_text, left_out / spread]), labels[some])
    threshold = noise / (classes * (1 - noise))
    for start in range(0, len(checked), BLOCK):
        chosen = checked[start : start + BLOCK]
        by_text, left_out = raw(chosen)
        p = _softmax(a[0] * by_text + a[1] / spread * left_out)
        own[chosen] = p[np.arange(len(chosen)), labels[chosen]]
        likely[chosen], likely_own[chosen] = p.argmax(axis=1), p.max(axis=1)
        expected += float(p[p < threshold].sum())
    return LabelCheck(labels, own, likely, likely_own, noise, threshold, expected, classes)


def _fit(scores: Floats, labels: Labels) -> tuple[Floats, float]:
    """Weights a (S,) and noise of labels (n,) with scores (S, n, C): the mode of the posterior."""
    from scipy.optimize import minimize  # a dependency of scikit-learn

    rows, (sources, _, classes) = np.arange(len(labels)), scores.shape
    right = scores[:, rows, labels]  # (S, n)

    def loss(v: Floats) -> tuple[float, Floats]:
        log_a, noise = v[:sources], 1 / (1 + np.exp(-v[sources]))
        a = np.exp(log_a)
        p = _softmax(np.tensordot(a, scores, 1))
        own = p[rows, labels]
        given = (1 - noise) * own + noise / classes
        sure = (1 - noise) * own / given  # that the label is right
        value = -np.log(given).sum() + log_a @ log_a / 2 - RIGHT * np.log(1 - noise)
        by_a = a * (sure * ((p * scores).sum(axis=2) - right)).sum(axis=1) + log_a
        by_noise = ((own - 1 / classes) / given).sum() + RIGHT / (1 - noise)
        return float(value), np.append(by_a, by_noise * noise * (1 - noise))

    bounds = [(-6.0, 6.0)] * sources + [(-9.0, 2.0)]  # noise of 0.01 to 88 %
    starts = [np.append(np.zeros(sources), logit) for logit in STARTS]  # there may be a mode without any noise
    modes = [minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts]
    v = min(modes, key=lambda mode: float(mode.fun)).x
    return np.exp(v[:sources]), float(1 / (1 + np.exp(-v[sources])))


def _softmax(scores: Floats) -> Floats:
    from scipy.special import softmax  # a dependency of scikit-learn

    found: Floats = softmax(scores, axis=-1)
    return found
