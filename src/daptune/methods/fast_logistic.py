"""The optimum of L2-penalised multinomial logistic regression of many images, at many strengths C.

CLIP's features vary far more in some directions than in others, so that L-BFGS on them needs thousands of steps. Here
each direction of the eigenbasis of their covariance is divided by the root of its curvature: a quarter of its variance,
for even probabilities, plus the penalty. L-BFGS then arrives in about a hundred steps.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Linear = tuple[Floats, Floats]
EVEN_CURVATURE = 0.25
"""Of the loss in a logit, at probability one half; the largest there is."""
FLAT = 1e-12
"""Directions whose variance is a smaller part of the largest one do not count."""


class FastLogistic:
    """Features (n, D) with labels (n,), float64, of three or more classes with images; weights of the classes (C,).

    A strength is scikit-learn's: the sum of the losses times c, plus half the squared norm of the weights. Fits may run
    in several threads at once.
    """

    def __init__(self, features: Floats, labels: NDArray[np.int64], weights: Floats | None = None) -> None:
        self.labels, self.classes = labels, int(labels.max()) + 1
        by_image = np.ones(len(labels)) if weights is None else weights[labels]
        self.total = float(by_image.sum())
        self.by_image = by_image / self.total
        self.mean = self.by_image @ features  # the bias is not penalised and takes it up
        centred = features - self.mean
        variance, basis = np.linalg.eigh(centred.T @ (self.by_image[:, None] * centred))
        varies = variance > FLAT * variance[-1]
        self.variance, self.basis = variance[varies], basis[:, varies]
        self.rotated = np.ascontiguousarray((centred @ self.basis).T)  # (R, n)

    def optimum(self, c: float) -> Linear:
        """Weight (C, D) and bias (C,) at the strength c."""
        penalty = 1 / (c * self.total)
        scale = 1 / np.sqrt(EVEN_CURVATURE * self.variance + penalty)
        found, bias = self._descend(scale, penalty * scale**2)
        weight = (found * scale) @ self.basis.T
        return weight, bias - weight @ self.mean

    def _descend(self, scale: Floats, shrink: Floats) -> Linear:
        """At most 1,000 steps down the mean loss of the features times `scale`, with penalties `shrink` (R,)."""
        from scipy.optimize import minimize  # slow to import

        rows = self.rotated
        width, images = len(rows), np.arange(len(self.labels))

        def loss(parameters: Floats) -> tuple[float, Floats]:
            table = parameters.reshape(self.classes, width + 1)
            weight = table[:, :width]
            logits = (weight * scale) @ rows
            logits += table[:, width:]
            logits -= logits.max(0)
            own = logits[self.labels, images]
            chances = np.exp(logits, out=logits)
            sums = chances.sum(0)
            value = self.by_image @ (np.log(sums) - own) + 0.5 * (shrink * weight * weight).sum()
            chances *= self.by_image / sums
            chances[self.labels, images] -= self.by_image
            slope = np.empty_like(table)
            slope[:, :width] = (chances @ rows.T) * scale + shrink * weight
            slope[:, width] = chances.sum(1)
            return float(value), slope.ravel()

        limits = {"maxiter": 1000, "gtol": 1e-5, "ftol": 64 * np.finfo(float).eps, "maxls": 50}
        start = np.zeros(self.classes * (width + 1))
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options=limits).x
        table = found.reshape(self.classes, width + 1)
        return table[:, :width], table[:, width]
