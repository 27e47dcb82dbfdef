"""The estimates of GDA (`gda.py`): class means and a shrunk precision from views, also of classes without images.

V views, n images, N = V n vectors, C classes, D dimensions; float64. With the pooled scatter A of all vectors (D, D)

    P = D (N - 1) / (n - 1) (A + tr(A) / (n - 1) I)^-1

which is the precision of Wang et al. 2024, D (A + tr(A) / (N - 1) I)^-1, but for the number of images that counts. The
scores of a `Discriminant` leave out their uniform prior, -ln C, which is the same for all classes.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from .discriminant import Discriminant, Floats, Labels, scatter_of, shrunk_inverse

NOTHING = 1e-10
"""Mean squared distance to the class mean that float32 features of equal images may have by rounding."""
NEIGHBOURS = 64
"""Vectors that stand for a class without images."""
SAME = 1e-3
"""Distance up to which two unit text features, computed at different times, are those of one class."""
NO_SCATTER = (
    "gda: the images of each class have the same features, so there is no covariance, and the answer is zero-shot "
    "CLIP's: give more images of a class, or take views of them (--set views=10)"
)
Trial = tuple[Discriminant, Floats, Floats, Labels]
"""A fit, unit features (m, D) that it has not seen, their zero-shot logits (m, C), and labels (m,)."""


def fit_gaussian(
    x: Floats, labels: Labels, classes: int, official_count: bool = False, official_covariance: bool = False
) -> Discriminant:
    """Fit to unit features of all views x (V, n, D) with labels (n,). P is 0 if the images of each class are the same.

    official_count: every view is an image, n = N. official_covariance: P is the pseudo-inverse of the mean of the
    classes' covariances, of those with more than one vector.
    """
    views, n, size = x.shape
    z, of_vector = x.reshape(-1, size), np.tile(labels, views)
    means, counts, scatter = scatter_of(z, of_vector, classes)
    if np.trace(scatter) <= NOTHING * len(z):
        precision = np.zeros((size, size))
    elif official_covariance:
        covariances = [np.cov(z[of_vector == c], rowvar=False) for c in np.flatnonzero(counts > 1)]
        precision = np.linalg.pinv(np.mean(covariances, axis=0), hermitian=True)
    else:
        free = max((len(z) if official_count else n) - 1, 1)
        precision = size * (len(z) - 1) / free * shrunk_inverse(scatter, 1 / free)
    return Discriminant(means, counts, precision, 0.0)


def rows_of(found: Discriminant, *, centred: bool) -> tuple[Floats, Floats]:
    """W^T (C, D) and b (C,). centred: less their mean over the classes, which changes no probability.

    Without it, logits are some hundreds for all classes, and float32 rounds their differences.
    """
    weight, bias = found.weights, found.bias
    return (weight - weight.mean(axis=0), bias - bias.mean()) if centred else (weight, bias)


def unseen_classes(vectors: Floats, texts: Floats) -> Discriminant:
    """Classes without images, by vectors (N, D) of others and their own unit text features t (C, D).

    By the k vectors x most similar to t: mean (sum x + k t / 4) / (k + k / 4), scatter S = sum (x - t)(x - t)^T; P is
    the mean over the classes of D (S + tr(S) / (k - 1) I)^-1.
    """
    k, (classes, size) = min(NEIGHBOURS, len(vectors)), texts.shape
    means, precision = np.empty_like(texts), np.zeros((size, size))
    for row, text in enumerate(texts):
        near = vectors[np.argsort(-(vectors @ text), kind="stable")[:k]]
        means[row] = (near.sum(axis=0) + k / 4 * text) / (k + k / 4)
        around = near - text
        precision += size * shrunk_inverse(around.T @ around, 1 / max(k - 1, 1)) / classes
    return Discriminant(means, np.zeros(classes, np.int64), precision, 0.0)


def rows_for(texts: Floats, weight: Floats, bias: Floats, vectors: Floats, fitted: Floats) -> tuple[Floats, Floats]:
    """W^T (C, D) and b (C,) of classes with unit text features `texts` (C, D).

    A class of the fit, known by its text feature among those `fitted` (F, D), keeps its row of `weight` (F, D) and
    `bias` (F,); the others are `unseen_classes` of the fit's `vectors` (N, D).
    """
    cosines = texts @ fitted.T
    own, other = cosines.argmax(axis=1), cosines.max(axis=1) < 1 - SAME**2 / 2
    rows, offsets = weight[own], bias[own]
    if other.any():
        rows[other], offsets[other] = rows_of(unseen_classes(vectors, texts[other]), centred=False)
    return rows, offsets


def best_alpha(alphas: Sequence[float], trials: Iterable[Trial], otherwise: float) -> float:
    """The weight of the scores beside the zero-shot logits that is right most often, the smallest of equals.

    `otherwise` if there are no trials.
    """
    right, alphas = None, sorted(alphas)
    for found, z, zero_shot, labels in trials:
        scores = found(z)
        hits = np.array([((zero_shot + alpha * scores).argmax(axis=1) == labels).sum() for alpha in alphas])
        right = hits if right is None else right + hits
    return otherwise if right is None else alphas[int(right.argmax())]
