"""Linear discriminant analysis of image features with a shrunk covariance, and its leave-one-out scores.

`Discriminant.fit` is the ensemble's; the method `gda` has its own estimates of S (`gaussian.py`).

n images, C classes, D dimensions; float64. Class means mu (C, D), pooled covariance

    S = (sum_i (z_i - mu_yi)(z_i - mu_yi)^T + SHRINKAGE D v I) / (n - C + SHRINKAGE D),   v = tr(sum) / ((n - C) D)

so few images give a multiple of I (nearest class mean), many the covariance. Classes count alike, whatever their sizes.

The mean of n_c images is longer than that of many, in expectation by t / n_c with t = tr(S^-1 sum) / (n - C). Without a
correction the scores of a class would fall with its images, and those of an image's own class when the image is left
out: with two images a class, from a length of t / 2 to t. So t / n_c is subtracted from the squared length (Moran &
Murphy, Applied Statistics 28, 1979, correct the plug-in scores of linear discriminant analysis likewise). S was made
of the same images, so t is up to half of what other images would give; with the whole, means of few images, which are
also more scattered, would be the nearest too often (macro-F1 on validation images of three uneven tasks).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
SHRINKAGE = 1.0
"""Pseudo-images of equal variance in all directions, per dimension."""


@dataclass(frozen=True, eq=False)
class Discriminant:
    """Scores z S^-1 mu_c - (mu_c S^-1 mu_c - t / n_c) / 2.

    means (C, D); counts (C,), images of each class, n_c; precision S^-1 (D, D)
    """

    means: Floats
    counts: Labels
    precision: Floats
    share: float
    """An image's share in S, 1 / (n - C + SHRINKAGE D); 0 if S is the identity."""
    noise: float = 0.0
    """t, by which one image is longer than the mean of its class; 0 corrects nothing."""

    @classmethod
    def fit(cls, z: Floats, labels: Labels, classes: int) -> Self:
        """Fit to image features (n, D) with labels (n,); a class without images has the mean of the others."""
        means, counts, scatter = scatter_of(z, labels, classes)
        free, size = max(len(z) - int((counts > 0).sum()), 1), z.shape[1]
        if not np.trace(scatter) > 0:
            return cls(means, counts, np.eye(size), 0.0)
        share = 1 / (free + SHRINKAGE * size)
        precision = shrunk_inverse(scatter, SHRINKAGE / free) / share
        return cls(means, counts, precision, share, float((precision * scatter).sum()) / free)

    @property
    def weights(self) -> Floats:
        """S^-1 mu, (C, D)."""
        return self.means @ self.precision

    @property
    def bias(self) -> Floats:
        """-(mu_c S^-1 mu_c - t / n_c) / 2, (C,); a class without images has the mean of all n."""
        images = np.maximum(np.where(self.counts > 0, self.counts, self.counts.sum()), 1)
        return -0.5 * ((self.weights * self.means).sum(axis=1) - self.noise / images)

    def __call__(self, z: Floats) -> Floats:
        """Scores of image features: (m, D) -> (m, C)."""
        return z @ self.weights.T + self.bias

    @property
    def directions(self) -> Floats:
        """Unit class means, (C, D)."""
        found: Floats = self.means / np.maximum(np.linalg.norm(self.means, axis=1, keepdims=True), 1e-12)
        return found

    def nearest(self, z: Floats, labels: Labels | None = None) -> Floats:
        """Cosine of unit features (m, D) to the nearest class mean, (m,).

        With `labels`, of images that it was fitted to: the mean of its own class is that without the image.
        """
        cosines = z @ self.directions.T
        if labels is not None:
            others = self.counts[labels][:, None] * self.means[labels] - z
            size = np.maximum(np.linalg.norm(others, axis=1), 1e-12)
            cosines[np.arange(len(z)), labels] = (z * others).sum(axis=1) / size
        found: Floats = cosines.max(axis=1)
        return found

    def left_out(self, z: Floats, labels: Labels) -> Floats:
        """Scores of images that it was fitted to, each as if fitted without that image: (m, D), (m,) -> (m, C).

        By the Sherman-Morrison formula; the divisor and the isotropic part of S, and t, stay those of all images. NaN
        for an image alone in its class.
        """
        others = self.counts[labels].astype(float) - 1
        others[others == 0] = np.nan
        around = z - self.means[labels]
        # S without image i is S - f r r^T, with r its deviation from its class mean: see Cook & Weisberg 1982, 2.2
        factor = self.share * (others + 1) / others
        moved = around @ self.precision  # (m, D), S^-1 r
        gain = (factor / (1 - factor * (around * moved).sum(axis=1)))[:, None]
        along = moved @ self.means.T  # (m, C)
        quadratic = -2 * self.bias + gain * along**2  # mu_c S_i^-1 mu_c - t / n_c
        scores = z @ self.weights.T + gain * (z * moved).sum(axis=1)[:, None] * along - 0.5 * quadratic
        rows = np.arange(len(z))
        own = self.means[labels] - around / others[:, None]  # the class mean without the image
        solved = own @ self.precision + gain * (own * moved).sum(axis=1)[:, None] * moved
        scores[rows, labels] = ((z - 0.5 * own) * solved).sum(axis=1) + 0.5 * self.noise / others
        scores[np.isnan(others)] = np.nan
        return scores


def scatter_of(z: Floats, labels: Labels, classes: int) -> tuple[Floats, Labels, Floats]:
    """Class means (C, D), counts (C,) and the sum of (z_i - mu_yi)(z_i - mu_yi)^T (D, D) of z (n, D), labels (n,).

    A class without images has the mean of the others.
    """
    counts = np.bincount(labels, minlength=classes)
    sums = np.zeros((classes, z.shape[1]))
    np.add.at(sums, labels, z)
    means = sums / np.maximum(counts, 1)[:, None]
    means[counts == 0] = means[counts > 0].mean(axis=0)
    around = z - means[labels]
    return means, counts, around.T @ around


def shrunk_inverse(scatter: Floats, ridge: float) -> Floats:
    """(scatter + ridge tr(scatter) I)^-1 by Cholesky's factors: positive definite for any scatter (D, D) but 0."""
    from scipy.linalg import cho_factor, cho_solve  # a dependency of scikit-learn

    identity = np.eye(len(scatter))
    found: Floats = cho_solve(cho_factor(scatter + ridge * np.trace(scatter) * identity), identity)
    return found
