"""Held-out figures of several methods, and the rule that chooses one of them.

The rule is the one-standard-error rule of Breiman et al., Classification and Regression Trees (1984), section 3.4.3:
of the methods whose accuracy is within one standard error of the best one's, the first in the order of preference, here
that of the rows. The standard error is that of the best accuracy over images. That of paired differences would be
smaller, and zero or nearly so for methods that differ on one or two images; but the folds share training images, so
that both are too small already.

Of images with any number of labels, mAP takes the place of the accuracy. It is no mean over images; its standard error,
and that of a difference, is the jackknife's (Efron & Stein, The Annals of Statistics 9, 1981): with theta_i the mAP
without image i, the pseudo-values n theta - (n - 1) theta_i take the place of the images that are right or wrong, of
which they would be the pseudo-values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NORMAL = 1.96
"""Standard errors of a 95 % interval."""


@dataclass(frozen=True, eq=False)
class Row:
    """A method's held-out figures, image by image; or a note that says why there are none.

    correct         (n,) share of the repeats in which the image was classified right
    log_likelihood  (n,) mean over the repeats of log p(true class), in nats
    seconds         of all fits and measurements, without the pass over the images that methods share
    """

    figure: ClassVar[str] = "accuracy"
    """What `headline` is, in JSON."""
    superlative: ClassVar[str] = "the most accurate"

    method: str
    correct: Floats | None = None
    log_likelihood: Floats | None = None
    seconds: float = 0.0
    note: str = ""

    @property
    def tried(self) -> bool:
        return self.correct is not None

    @cached_property
    def accuracy(self) -> float:
        """Share of held-out images that are classified right; NaN if it was not tried."""
        return math.nan if self.correct is None else float(self.correct.mean())

    @property
    def headline(self) -> float:
        """The figure that methods are compared by."""
        return self.accuracy

    @cached_property
    def error(self) -> float:
        """Standard error of `headline` over images."""
        return math.nan if self.correct is None else standard_error(self.correct)

    @cached_property
    def nll(self) -> float:
        """Mean negative log-likelihood of the true class, in nats."""
        return math.nan if self.log_likelihood is None else -float(self.log_likelihood.mean())

    def behind(self, best: "Row") -> tuple[float, float]:
        """How much less accurate it is than another, over the same images: the mean and its standard error."""
        if self.correct is None or best.correct is None:
            return math.nan, math.nan
        gap = best.correct - self.correct
        return float(gap.mean()), standard_error(gap)


@dataclass(frozen=True, eq=False)
class RankedRow(Row):
    """Held-out figures of a method on images with any number of labels.

    correct         (n,) the jackknife's pseudo-values of the mAP, mean over the repeats
    log_likelihood  (n,) mean over classes and repeats of log p(class is there, or not), in nats
    precision       mAP of the held-out images of all folds together, mean over the repeats
    """

    figure: ClassVar[str] = "mean_average_precision"
    superlative: ClassVar[str] = "the highest mAP"

    precision: float = math.nan

    @property
    def headline(self) -> float:
        """mAP."""
        return self.precision

    def behind(self, best: Row) -> tuple[float, float]:
        """How much lower its mAP is than another's, and the standard error."""
        return best.headline - self.headline, super().behind(best)[1]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The rows in the order of preference, and how they were measured."""

    rows: tuple[Row, ...]
    how: str
    left_out: tuple[str, ...] = ()
    """Methods that cannot learn from these images."""

    @cached_property
    def best(self) -> Row | None:
        """The one with the highest headline; of equals, the likelier one. None if nothing was tried."""
        tried = [row for row in self.rows if row.tried]
        return max(tried, key=lambda row: (row.headline, -row.nll)) if tried else None

    @cached_property
    def chosen(self) -> Row:
        """By the rule of the module; the first of all if nothing was tried."""
        if self.best is None:
            return self.rows[0]
        return self.rows[first_near([row.headline for row in self.rows], self.best.headline, self.best.error)]

    @property
    def why(self) -> str:
        """The choice and its reason, one line."""
        name, best = self.chosen.method, self.best
        if best is None:
            return f"{name}, the first in the order of preference ({self.rows[0].note})"
        if self.chosen is not best:
            return (
                f"{name}, the first in the order of preference within one standard error of the best ({best.method}, "
                f"{100 * best.headline:.1f} ± {100 * best.error:.1f} %)"
            )
        if self.rows[0] is best:
            return f"{name}, {best.superlative}, and the first in the order of preference"
        return f"{name}, {best.superlative}; none before it in the order of preference is within one standard error"

    def to_json(self) -> dict[str, Any]:
        """Plain values, shares from 0 to 1.

        `difference` is to the best, image by image, and `interval` its 95 % one. `near` says whether a method is within
        one standard error of the best. Of images with several labels, `mean_average_precision` stands for `accuracy`.
        """
        rows = []
        for row in self.rows:
            about: dict[str, Any] = {"method": row.method}
            if row.tried and self.best is not None:
                gap, error = row.behind(self.best)
                about |= {row.figure: row.headline, "standard_error": row.error, "nll": row.nll}
                about |= {"difference": -gap, "interval": [-gap - NORMAL * error, -gap + NORMAL * error]}
                about |= {"near": is_near(row.headline, self.best.headline, self.best.error)}
                about["seconds"] = round(row.seconds, 2)
            rows.append(about | ({"note": row.note} if row.note else {}))
        best = None if self.best is None else self.best.method
        found = {"measured": self.how, "best": best, "rows": rows}
        return found | ({"left_out": list(self.left_out)} if self.left_out else {})

    def choice(self) -> dict[str, Any]:
        """`to_json` with the chosen `method` and `why`."""
        return {"method": self.chosen.method, "why": self.why} | self.to_json()


def is_near(accuracy: float, best: float, error: float) -> bool:
    """Whether an accuracy is within the standard error of the best one; NaN is not."""
    return accuracy >= best - error


def first_near(accuracies: Sequence[float], best: float, error: float) -> int:
    """Place of the first of the accuracies within the standard error of the best one."""
    return next(place for place, accuracy in enumerate(accuracies) if is_near(accuracy, best, error))


def standard_error(values: Floats) -> float:
    """Of the mean of values (n,); infinite for a single one, and if one is NaN."""
    found = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf
    return math.inf if math.isnan(found) else found
