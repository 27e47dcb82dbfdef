"""What the fits of a method say about images that they have not seen, added up to a row of the comparison.

n images, C classes. `add` takes the rows that were held out from a fit, and the predictions on them.
"""

import numpy as np
from numpy.typing import NDArray

from daptune.choose.comparison import RankedRow, Row
from daptune.measured import Measured
from daptune.metrics import average_precision, average_precision_without

Rows = NDArray[np.int64]
_TINY = np.finfo(np.float32).tiny


class Hits:
    """Images with one class each, judged by whether it is the most likely."""

    def __init__(self, images: int) -> None:
        self._right, self._likely, self._times = np.zeros(images), np.zeros(images), np.zeros(images)

    def add(self, held: Rows, found: Measured) -> None:
        """Predictions on the rows `held`."""
        chance = found.probabilities[np.arange(len(held)), found.labels].astype(np.float64)
        self._right[held] += found.correct
        self._likely[held] += np.log(np.maximum(chance, _TINY))
        self._times[held] += 1

    def row(self, method: str, seconds: float) -> Row:
        """Of the images that were held out at all."""
        rows = self._times > 0
        return Row(method, self._right[rows] / self._times[rows], self._likely[rows] / self._times[rows], seconds)


class Rankings:
    """Images with any number of labels, judged by how each class ranks them.

    The images of all folds are ranked together: a fold alone has so few of a rare class that its average precision
    says little, and more than it should.
    """

    def __init__(self, labels: NDArray[np.bool_]) -> None:
        self._labels, self._times = labels, np.zeros(len(labels), dtype=np.int64)
        self._repeats: list[NDArray[np.float32]] = []  # probabilities (n, C)

    def add(self, held: Rows, found: Measured) -> None:
        """Predictions on the rows `held`, each of them the next of its image."""
        if self._times[held].max(initial=0) == len(self._repeats):
            self._repeats.append(np.zeros(self._labels.shape, np.float32))
        for repeat, probabilities in enumerate(self._repeats):
            own = self._times[held] == repeat
            probabilities[held[own]] = found.probabilities[own]
        self._times[held] += 1

    def row(self, method: str, seconds: float) -> RankedRow:
        """Of the images that were held out at all. The jackknife's error is infinite if one image alone has a class."""
        values, likely, precisions = np.zeros(len(self._labels)), np.zeros(len(self._labels)), []
        for repeat, probabilities in enumerate(self._repeats):
            seen = self._times > repeat
            y, p = self._labels[seen], probabilities[seen].astype(np.float64)
            whole, without = _mean(average_precision(y, p)), _mean(average_precision_without(y, p))
            precisions.append(float(whole))
            values[seen] += len(y) * whole - (len(y) - 1) * without
            likely[seen] += np.log(np.maximum(np.where(y, p, 1 - p), _TINY)).mean(axis=1)
        rows = self._times > 0
        times, precision = self._times[rows], float(np.mean(precisions))
        return RankedRow(method, values[rows] / times, likely[rows] / times, seconds, precision=precision)


def _mean(by_class: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis, classes, of those that have images; NaN without any."""
    known = ~np.isnan(by_class)
    total = np.where(known, by_class, 0).sum(axis=-1)
    return np.divide(total, known.sum(axis=-1), out=np.full_like(total, np.nan), where=known.any(axis=-1))
