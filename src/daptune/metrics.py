"""Metrics of classifiers and tests of their differences, in numpy; some use scikit-learn and scipy.

n images, C classes. `labels` and `predicted` are class indices (n,), `probabilities` is (n, C) with rows that sum to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from daptune.errors import DataError

Floats = NDArray[np.float64]
_RESAMPLES = 10_000


def accuracy(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Share of images whose predicted class is the true one, 0 to 1."""
    y, p = _pair(labels, predicted)
    return float((y == p).mean())


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """(C, C) counts: rows are true classes, columns predicted classes."""
    y, p = _pair(labels, predicted)
    low, high = min(y.min(), p.min()), max(y.max(), p.max())
    if low < 0 or high >= classes:
        raise DataError(f"Class indices of {classes} classes are 0 to {classes - 1}; found {low} to {high}.")
    return np.bincount(y * classes + p, minlength=classes * classes).reshape(classes, classes)


def per_class_accuracy(labels: ArrayLike, predicted: ArrayLike, classes: int) -> Floats:
    """(C,) accuracy on the images of each class; NaN for a class without images."""
    matrix = confusion_matrix(labels, predicted, classes)
    counts = matrix.sum(axis=1)
    shares: Floats = np.full(classes, np.nan)
    np.divide(matrix.diagonal(), counts, out=shares, where=counts > 0)
    return shares


def macro_f1(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Mean F1 over the classes with images, 0 to 1; F1 = 2 TP / (2 TP + FP + FN).

    As Dassl prints it: sklearn's f1_score(average="macro", labels=np.unique(y_true)) (dassl/evaluation/evaluator.py).
    """
    y, p = _pair(labels, predicted)
    matrix = confusion_matrix(y, p, int(max(y.max(), p.max())) + 1)
    true, said = matrix.sum(axis=1), matrix.sum(axis=0)
    there = true > 0
    return float((2 * matrix.diagonal()[there] / (true + said)[there]).mean())


def negative_log_likelihood(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean of -log p(true class), in nats; probabilities are at least the smallest normal float32."""
    y, p = _scored(labels, probabilities)
    return float(-np.log(np.maximum(p[np.arange(len(y)), y], np.finfo(np.float32).tiny)).mean())


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 15) -> float:
    """Mean over images of |accuracy - confidence| of their bin, 0 to 1; bins have equal width and are left-open.

    Guo et al., On Calibration of Modern Neural Networks (ICML 2017), equation 3; 15 bins as there.
    """
    parts = by_confidence(labels, probabilities, bins)
    return float(sum(abs((right - confidence).sum()) for confidence, right in parts) / len(np.asarray(labels)))


def by_confidence(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = 15
) -> list[tuple[Floats, NDArray[np.bool_]]]:
    """(confidence, correct) of the images in each non-empty bin; bins have equal width and are left-open."""
    y, p = _scored(labels, probabilities)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return [(confidence[which == place], right[which == place]) for place in np.unique(which)]


def rank_p_values(reference: ArrayLike, values: ArrayLike) -> Floats:
    """Share of known images that are as strange as each new one: reference (q,) ascending, values (n,) -> (n,).

    p = (1 + number of reference values <= value) / (1 + q), the p value of conformal prediction (Vovk, Gammerman &
    Shafer, Algorithmic Learning in a Random World, 2005, section 2.2): for images like the known ones, P(p <= e) <= e.
    """
    known = np.asarray(reference, dtype=np.float64)
    found: Floats = (1 + np.searchsorted(known, np.asarray(values, dtype=np.float64), side="right")) / (1 + len(known))
    return found


def tail_p_values(reference: ArrayLike, values: ArrayLike) -> Floats:
    """`rank_p_values` that go on below every reference value: reference (q,) ascending, values (n,) -> (n,).

    A rank cannot be below 1 / (1 + q), however strange the image. There, p is that of the prediction interval for one
    more value of a normal population, P(T < (value - mean) / (s sqrt(1 + 1 / q))) with T of Student's t with q - 1
    degrees of freedom (Hahn & Meeker, Statistical Intervals, 1991, section 4.7), and 1 / (1 + q) at most.
    """
    known, new = np.asarray(reference, dtype=np.float64), np.asarray(values, dtype=np.float64)
    found = rank_p_values(known, new)
    deviation = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    if deviation > 0:
        tail = _student(len(known) - 1, (new - known.mean()) / (deviation * np.sqrt(1 + 1 / len(known))))
        found = np.where(new < known[0], np.minimum(found, tail), found)
    return found


def _student(freedom: int, t: Floats) -> Floats:
    """P(T < t) of Student's t with whole degrees of freedom (Abramowitz & Stegun, 26.7.3 and 26.7.4).

    Without scipy, because exported files are judged where it is not installed.
    """
    angle, odd = np.arctan(t / np.sqrt(freedom)), freedom % 2
    term = np.cos(angle) if odd else np.ones_like(angle)
    total = np.zeros_like(angle)
    for power in range(1 + odd, freedom, 2):
        total, term = total + term, term * np.cos(angle) ** 2 * power / (power + 1)
    within = np.sin(angle) * total  # P(|T| < |t|), with the sign of t
    found: Floats = 0.5 + (angle + within) / np.pi if odd else 0.5 + within / 2
    return np.maximum(found, 0.0)


def prediction_sets(reference: ArrayLike, probabilities: ArrayLike, error: float) -> NDArray[np.bool_]:
    """Sets of classes that hold the true one with probability 1 - error, and the most likely one always: (n, C).

    Split conformal prediction with the score 1 - p(class) (Sadinle, Lei & Wasserman, JASA 2019): `reference` (q,) are
    the probabilities of the true classes of images that were not learned from, ascending; `probabilities` (n, C).
    """
    p = np.asarray(probabilities, dtype=np.float64)
    found: NDArray[np.bool_] = rank_p_values(reference, p.ravel()).reshape(p.shape) > error
    found[np.arange(len(p)), p.argmax(axis=1)] = True
    return found


def average_precision(present: ArrayLike, scores: ArrayLike) -> Floats:
    """Area under the precision-recall curve of each class, (C,): sum over thresholds of (R_k - R_k-1) P_k.

    present (n, C) of 0 and 1, scores (n, C); NaN for a class without images. sklearn's average_precision_score.
    """
    y, p = _presence(present, scores)
    found = np.full(y.shape[1], np.nan)
    for place in np.flatnonzero(y.any(axis=0)):
        _, _, said, hits = _thresholds(y[:, place], p[:, place])
        precision, recall = hits / said, hits / hits[-1]
        found[place] = (np.diff(recall, prepend=0.0) * precision).sum()
    return found


def average_precision_without(present: ArrayLike, scores: ArrayLike) -> Floats:
    """`average_precision` of each class without each image in turn, (n, C), for a jackknife over images.

    present (n, C) of 0 and 1, scores (n, C); NaN for a class that no other image shows. O(C n log n): an image changes
    the counts from its own threshold k on. With H_j hits among N_j images and d_j = H_j - H_j-1, the terms
    d_j H_j / N_j stay as they are for j < k; for j > k, N_j becomes N_j - 1, and H_j becomes H_j - 1 if it is a hit.
    """
    y, p = _presence(present, scores)
    found = np.full(y.shape, np.nan)
    for place in np.flatnonzero(y.any(axis=0)):
        order, own, said, hits = _thresholds(y[:, place], p[:, place])
        total, new, fewer = hits[-1], np.diff(hits, prepend=0), np.maximum(said - 1, 1)
        before = np.cumsum(new * hits / said) - new * hits / said
        without_miss = before + np.cumsum((new * hits / fewer)[::-1])[::-1]
        later = new * (hits - 1) / fewer
        without_hit = before + np.cumsum(later[::-1])[::-1] - later + (new - 1) * (hits - 1) / fewer
        hit = y[order, place].astype(np.bool_)
        found[order[~hit], place] = without_miss[own[~hit]] / total
        if total > 1:
            found[order[hit], place] = without_hit[own[hit]] / (total - 1)
    return found


def _thresholds(y: NDArray[Any], p: NDArray[Any]) -> tuple[NDArray[np.int64], ...]:
    """The images of a class by falling score (n,), the threshold that each stands at (n,), and at each threshold the
    images from it on, and the hits among them, (K,): of y of 0 and 1 and scores p, (n,) both."""
    order = np.argsort(-p, kind="stable")
    ranked, hits = p[order], np.cumsum(y[order])
    last = np.append(ranked[1:] != ranked[:-1], True)  # equal scores are one threshold
    ends = np.flatnonzero(last)
    return order, np.cumsum(last) - last, ends + 1, hits[last]


def f1_by_class(present: ArrayLike, said: ArrayLike) -> tuple[Floats, float]:
    """F1 of each class (C,), NaN for one without images, and micro-F1 of all pairs: (n, C) of 0 and 1 both."""
    y, p = (array.astype(np.bool_) for array in _presence(present, said))
    both, either = (y & p).sum(axis=0), y.sum(axis=0) + p.sum(axis=0)
    by_class = np.where(y.any(axis=0), 2 * both / np.maximum(either, 1), np.nan)
    return by_class, float(2 * both.sum() / max(either.sum(), 1))


def best_thresholds(present: ArrayLike, probabilities: ArrayLike, otherwise: float) -> Floats:
    """The threshold of each class that maximises its F1, (C,); `otherwise` for a class without images.

    Midway between the probabilities of two images, (n, C); of equally good ones that nearest to `otherwise`.
    """
    y, p = _presence(present, probabilities)
    found = np.full(y.shape[1], otherwise)
    for place in np.flatnonzero(y.any(axis=0)):
        order = np.argsort(-p[:, place], kind="stable")
        ranked, hits = p[order, place], np.cumsum(y[order, place])
        f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
        between = (ranked + np.append(ranked[1:], 0.0)) / 2
        f1[np.append(ranked[1:] == ranked[:-1], False)] = -1  # no threshold divides equal probabilities
        best = np.flatnonzero(f1 == f1.max())
        found[place] = between[best[np.abs(between[best] - otherwise).argmin()]]
    return found


def text_distance(text_features: ArrayLike) -> float:
    """Mean Euclidean distance over unordered pairs of features (C, D); NaN for one class."""
    return float(np.sqrt(_pair_squares(text_features)).mean()) if len(np.asarray(text_features)) > 1 else float("nan")


def uniformity(features: ArrayLike, *, t: float = 2.0) -> float:
    """log of the mean over unordered pairs of exp(-t d^2), (C, D); lower is more uniform; NaN for one class.

    Wang & Isola, Understanding Contrastive Representation Learning (ICML 2020), equation 2.
    """
    if len(np.asarray(features)) < 2:
        return float("nan")
    return float(np.log(np.exp(-t * _pair_squares(features)).mean()))


def prototype_distance(features: ArrayLike, labels: ArrayLike, prototypes: ArrayLike) -> float:
    """Mean Euclidean distance of image features (n, D) to the prototypes (C, D) of their classes (n,)."""
    z, s = np.asarray(features, dtype=np.float64), np.asarray(prototypes, dtype=np.float64)
    return float(np.linalg.norm(z - s[np.asarray(labels)], axis=1).mean())


def silhouette(features: ArrayLike, labels: ArrayLike) -> float:
    """Mean over images (n, D) of (b - a) / max(a, b): a is the mean Euclidean distance to the other images of the
    class, b that to the nearest other class. An image alone in its class counts 0; NaN for a single class.

    Rousseeuw, Silhouettes (1987).
    """
    from sklearn.metrics import silhouette_score

    z, y = np.asarray(features, dtype=np.float64), np.asarray(labels)
    kinds = len(np.unique(y))
    if kinds < 2:
        return float("nan")
    return float(silhouette_score(z, y)) if kinds < len(y) else 0.0


def _pair_squares(features: ArrayLike) -> Floats:
    """|x_i - x_j|^2 of the unordered pairs of (n, D), clipped at 0."""
    x = np.asarray(features, dtype=np.float64)
    squares = (x**2).sum(1)[:, None] + (x**2).sum(1) - 2 * x @ x.T
    pairs: Floats = np.maximum(squares[np.triu_indices(len(x), 1)], 0.0)
    return pairs


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its confidence interval; with one value, low and high are NaN."""

    mean: float
    low: float
    high: float
    count: int


def mean_interval(values: Sequence[float] | Floats, *, level: float = 0.95) -> Interval:
    """Mean over seeds with Student's t interval: mean +- t s / sqrt(n)."""
    from scipy.special import stdtrit  # a dependency of scikit-learn

    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise DataError(f"An interval needs a list of at least one number, not an array of shape {x.shape}.")
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    half = float(stdtrit(len(x) - 1, (1 + level) / 2) * x.std(ddof=1)) / len(x) ** 0.5
    return Interval(mean, mean - half, mean + half, len(x))


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Difference of b and a on the same images, with the bootstrap's 95 % interval and two-sided p value."""

    difference: float  # mean(b) - mean(a)
    low: float
    high: float
    p_value: float


def share_interval(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of the share behind `hits` of `count`, by Wilson's score (1927): (low, high), 0 to 1.

    Raises ValueError without any.
    """
    if count < 1:
        raise ValueError("expected a count of at least 1, found none.")
    z, share = 1.959963984540054, hits / count  # the 97.5 % quantile of the normal distribution
    middle, spread = share + z * z / (2 * count), z * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5
    low, high = ((middle + side * spread) / (1 + z * z / count) for side in (-1, 1))
    return (0.0 if hits == 0 else low), (1.0 if hits == count else high)


def paired_bootstrap(pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> PairedDifference:
    """Compare two classifiers a and b by their scores (n,) on the same images: 1 for correct, 0 for wrong.

    With several pairs, one per set of images, the result is their mean; each set is resampled separately and has the
    same weight. Percentile bootstrap over images (Efron & Tibshirani 1993, section 13.3). The counts of each distinct
    difference in n draws with replacement follow a multinomial, which makes it exact and fast for any n.
    """
    if not pairs:
        raise DataError("A paired comparison needs at least one pair of lists, found none.")
    rng = np.random.default_rng(0)
    differences, means = [], np.zeros(_RESAMPLES)
    for a, b in pairs:
        x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        if x.shape != y.shape or x.ndim != 1 or len(x) == 0:
            raise DataError(f"A paired comparison needs two lists of one length, not shapes {x.shape} and {y.shape}.")
        values, counts = np.unique(y - x, return_counts=True)
        means += rng.multinomial(len(x), counts / len(x), size=_RESAMPLES) @ values / len(x)
        differences.append((y - x).mean())
    means /= len(pairs)
    low, high = np.quantile(means, [0.025, 0.975])
    # add one to both: a finite number of resamples cannot give a p value of 0
    tail = (1 + min((means <= 0).sum(), (means >= 0).sum())) / (1 + _RESAMPLES)
    return PairedDifference(float(np.mean(differences)), float(low), float(high), float(min(1.0, 2 * tail)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for multiple tests (Holm 1979), which controls the family-wise error rate."""
    p = np.asarray(p_values, dtype=np.float64)
    order, adjusted = np.argsort(p, kind="stable"), np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(p), 0, -1) * p[order]))
    found: list[float] = adjusted.tolist()
    return found


def _pair(labels: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    y, p = np.asarray(labels), np.asarray(predicted)
    if y.shape != p.shape or y.ndim != 1 or len(y) == 0:
        raise DataError(f"Labels and predictions must be two lists of one length, not shapes {y.shape} and {p.shape}.")
    return _whole(y), _whole(p)


def _scored(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if y.ndim != 1 or p.ndim != 2 or len(y) != len(p) or len(y) == 0:
        raise DataError(f"Expected labels (n,) and probabilities (n, C), not shapes {y.shape} and {p.shape}.")
    return _whole(y), p


def _presence(present: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    y, p = np.asarray(present), np.asarray(scores, dtype=np.float64)
    if y.shape != p.shape or y.ndim != 2 or len(y) == 0:
        raise DataError(f"Expected an indicator matrix and scores (n, C), not shapes {y.shape} and {p.shape}.")
    return y.astype(np.bool_), p


def _whole(array: NDArray[Any]) -> NDArray[np.int64]:
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"Classes must be whole numbers, not {array.dtype}; give indices, not names.")
    return array.astype(np.int64)
