"""Training images with a likely wrong label, by confident learning on out-of-sample nearest prototypes.

Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021, arXiv 1911.00068,
section 3.1: an image is flagged if another class is at least as probable as that class is, on average, for the images
labelled with it. The probabilities must come from a model that has not seen the image: here the nearest prototype of
the frozen CLIP's features, with each image left out of the prototype of its own class.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SCALES = np.geomspace(1, 300, 60)  # candidate inverse temperatures


@dataclass(frozen=True)
class Suspect:
    """A flagged image: its row, its label, its likely class, and their probabilities (0 to 1)."""

    row: int
    given: int
    likely: int
    p_given: float
    p_likely: float


def leave_one_out(features: Floats, labels: NDArray[np.int64], classes: int) -> Floats:
    """Out-of-sample probabilities (n, C) of each image; NaN for the only image of a class.

    Prototypes are normalised means of unit features (n, D); the temperature maximises the out-of-sample likelihood of
    the labels.
    """
    sums = np.zeros((classes, features.shape[1]))
    np.add.at(sums, labels, features)
    counts = np.bincount(labels, minlength=classes)
    cosines = features @ _unit(sums).T  # (n, C)
    cosines[np.arange(len(labels)), labels] = (features * _unit(sums[labels] - features)).sum(axis=1)
    cosines[:, counts == 0] = -np.inf
    judged = counts[labels] > 1
    if not judged.any():
        return np.full((len(labels), classes), np.nan)
    own = np.flatnonzero(judged), labels[judged]
    likelihoods = [np.log(np.maximum(_softmax(scale * cosines)[own], 1e-30)).mean() for scale in SCALES]
    found = _softmax(SCALES[int(np.argmax(likelihoods))] * cosines)
    found[~judged] = np.nan
    return found


def suspects(features: Floats, labels: NDArray[np.int64], classes: int) -> list[Suspect]:
    """The flagged images, largest difference of the two probabilities first."""
    p = leave_one_out(features, labels, classes)
    judged = np.flatnonzero(~np.isnan(p).any(axis=1))
    thresholds = np.full(classes, np.inf)  # a class without such images flags none
    for label in np.unique(labels[judged]):
        thresholds[label] = p[judged[labels[judged] == label], label].mean()
    found = []
    for row in judged.tolist():
        confident = np.where(p[row] >= thresholds, p[row], 0.0)  # only confident classes
        likely, given = int(confident.argmax()), int(labels[row])
        if likely != given and confident[likely] > p[row, given]:
            found.append(Suspect(row, given, likely, float(p[row, given]), float(p[row, likely])))
    return sorted(found, key=lambda s: (s.p_given - s.p_likely, s.row))


def _unit(vectors: Floats) -> Floats:
    found: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found


def _softmax(logits: Floats) -> Floats:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Floats = exp / exp.sum(axis=1, keepdims=True)
    return found
