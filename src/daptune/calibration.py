"""Temperature scaling: probabilities softmax(logits / T) that mean what they say, by images that were not learned from.

Guo et al., On Calibration of Modern Neural Networks (ICML 2017), section 4.2: T minimises the negative log-likelihood.
n images, C classes; `labels` (n,) are class indices, `logits` (n, C).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from daptune.metrics import expected_calibration_error, negative_log_likelihood

Floats = NDArray[np.float64]
LIMITS = (0.05, 20.0)
"""Of a temperature: perfectly separated images would make it 0."""
CHOICES = ("auto", "none")


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found.

    temperature     1 if no other makes new images more likely
    images          how many judged it
    before, after   expected calibration error, 0 to 1, at temperature 1, and of each half of the images at the
                    temperature of the other half
    nll_before, nll_after   negative log-likelihood in nats, likewise; the temperature is chosen by it
    """

    temperature: float
    images: int
    before: float
    after: float
    nll_before: float
    nll_after: float

    @property
    def text(self) -> str:
        """In words."""
        before, where = f"negative log-likelihood {self.nll_before:.2f}", f"on {self.images} validation images"
        if self.temperature == 1:
            return f"1: {before} {where}, no other makes them more likely"
        return f"{self.temperature:.2f}: {before} -> {self.nll_after:.2f} {where}"


def scaled(logits: ArrayLike, temperature: float) -> Floats:
    """softmax(logits / temperature), (n, C)."""
    from scipy.special import softmax  # a dependency of scikit-learn

    found: Floats = softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)
    return found


def fit_temperature(labels: ArrayLike, logits: ArrayLike) -> float:
    """The temperature within `LIMITS` that minimises the negative log-likelihood."""
    from scipy.optimize import minimize_scalar  # a dependency of scikit-learn

    def loss(log_t: float) -> float:
        return negative_log_likelihood(labels, scaled(logits, float(np.exp(log_t))))

    return float(np.exp(minimize_scalar(loss, bounds=tuple(np.log(LIMITS)), method="bounded").x))


def calibrate(labels: ArrayLike, logits: ArrayLike) -> Calibration:
    """The temperature of all images if two-fold cross-validation says that it makes new images more likely, else 1.

    The halves are every other image of each class.
    """
    y, raw = np.asarray(labels), np.asarray(logits, dtype=np.float64)
    half = np.empty(len(y), dtype=np.int64)
    half[np.argsort(y, kind="stable")] = np.arange(len(y)) % 2
    plain = scaled(raw, 1.0)
    crossed = plain.copy()
    if len(y) > 1:
        for side in (0, 1):
            crossed[half == side] = scaled(raw[half == side], fit_temperature(y[half != side], raw[half != side]))
    (before, after), (nll, crossed_nll) = (
        [error(y, p) for p in (plain, crossed)] for error in (expected_calibration_error, negative_log_likelihood)
    )
    if not crossed_nll < nll:
        return Calibration(1.0, len(y), before, before, nll, nll)
    return Calibration(round(fit_temperature(y, raw), 4), len(y), before, after, nll, crossed_nll)
