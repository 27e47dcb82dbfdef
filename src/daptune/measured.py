"""Predictions on labelled images, and the figures computed from them. n images, C classes."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from daptune import metrics


@dataclass(frozen=True, eq=False)
class Measured:
    """Predictions on n labelled images, and the figures computed from them.

    probabilities   (n, C), float32 as measured, rows that sum to 1      labels   (n,) int64, the true classes
    known           p value of each image's similarity to known images (n,), or None (`Ensemble.known`)
    truth           probabilities of the true classes of known images, ascending, or empty
    """

    by_class: ClassVar[str] = "accuracy"
    """What `per_class` holds."""

    probabilities: NDArray[np.floating[Any]]
    labels: NDArray[Any]
    known: NDArray[np.float64] | None = None
    truth: tuple[float, ...] = ()

    @cached_property
    def predicted(self) -> NDArray[Any]:
        """The most likely class of each image, (n,)."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image is classified right, (n,)."""
        return self.predicted == self.labels

    @cached_property
    def accuracy(self) -> float:
        """Share of images that are classified right, 0 to 1."""
        return metrics.accuracy(self.labels, self.predicted)

    @cached_property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have images, 0 to 1."""
        return metrics.macro_f1(self.labels, self.predicted)

    @cached_property
    def nll(self) -> float:
        """Mean negative log-likelihood of the true class, in nats."""
        return metrics.negative_log_likelihood(self.labels, self.probabilities)

    @cached_property
    def calibration_error(self) -> float:
        """Expected calibration error with 15 bins, 0 to 1."""
        return metrics.expected_calibration_error(self.labels, self.probabilities)

    @cached_property
    def per_class(self) -> NDArray[np.float64]:
        """Accuracy within each class, (C,); NaN for a class without images."""
        return metrics.per_class_accuracy(self.labels, self.predicted, self.probabilities.shape[1])

    @property
    def headline(self) -> float:
        """The figure that epochs are chosen by."""
        return self.accuracy

    @property
    def shown(self) -> dict[str, float]:
        """The figures of a table, by heading."""
        return {"accuracy": self.accuracy, "macro-F1": self.macro_f1}

    @property
    def validation(self) -> dict[str, float]:
        """The figures of an epoch's row in the history."""
        return {"val_accuracy": self.accuracy, "val_macro_f1": self.macro_f1, "val_nll": self.nll}

    def turned_away(self, reject: float) -> float:
        """Share of images that are called unknown if this share of known images may be; NaN without `known`."""
        return float("nan") if self.known is None else float((self.known <= reject).mean())

    def covered(self, error: float) -> tuple[float, float]:
        """Share of images whose prediction set holds the truth, and mean number of classes in a set."""
        within = metrics.prediction_sets(self.truth, self.probabilities, error)
        return float(within[np.arange(len(self.labels)), self.labels].mean()), float(within.sum(axis=1).mean())

    def __getitem__(self, figure: str) -> Any:
        return getattr(self, figure)  # `evaluate` once gave a dict

    def among(self, columns: Sequence[int]) -> "Measured":
        """The same images with predictions restricted to some classes; `labels` already index `columns`."""
        chosen = self.probabilities[:, list(columns)]
        return Measured(chosen / np.maximum(chosen.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny), self.labels)

    def to_json(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Accuracy, macro_f1, nll and per_class as plain values; classes without images are left out."""
        rows = zip(class_names, self.per_class.tolist(), strict=True)
        return {
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "nll": self.nll,
            "per_class": {name: value for name, value in rows if value == value},  # NaN differs from itself
        }


@dataclass(frozen=True, eq=False)
class Presence(Measured):
    """Predictions on n images with any number of C labels.

    probabilities   (n, C), each class by itself      labels   (n, C) of bool, the classes that are there
    thresholds      (C,), a class is predicted from this probability on
    """

    by_class: ClassVar[str] = "average precision"
    """What `per_class` holds."""

    _: KW_ONLY
    thresholds: NDArray[np.floating[Any]]

    @cached_property
    def predicted(self) -> NDArray[np.bool_]:
        """The classes that each image is said to show, (n, C)."""
        found: NDArray[np.bool_] = self.probabilities >= self.thresholds
        return found

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether exactly the classes of each image are predicted, (n,)."""
        found: NDArray[np.bool_] = (self.predicted == self.labels).all(axis=1)
        return found

    @cached_property
    def accuracy(self) -> float:
        """Share of images of which exactly the classes are predicted, 0 to 1."""
        return float(self.correct.mean())

    @cached_property
    def per_class(self) -> NDArray[np.float64]:
        """Average precision of each class, (C,); NaN for a class without images."""
        return metrics.average_precision(self.labels, self.probabilities)

    @cached_property
    def mean_average_precision(self) -> float:
        """mAP: mean of `per_class` over the classes with images, 0 to 1; NaN without any."""
        return _mean(self.per_class)

    @cached_property
    def class_f1(self) -> NDArray[np.float64]:
        """F1 of each class at its threshold, (C,); NaN for a class without images."""
        return metrics.f1_by_class(self.labels, self.predicted)[0]

    @cached_property
    def macro_f1(self) -> float:
        """Mean F1 at the thresholds over the classes with images, 0 to 1."""
        return _mean(self.class_f1)

    @cached_property
    def micro_f1(self) -> float:
        """F1 at the thresholds over all pairs of an image and a class, 0 to 1."""
        return metrics.f1_by_class(self.labels, self.predicted)[1]

    @cached_property
    def nll(self) -> float:
        """Mean binary cross-entropy over images and classes, in nats."""
        return metrics.negative_log_likelihood(*self.pairs)

    @property
    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Every pair of an image and a class as an image of two classes, absent and present: (n C,) and (n C, 2)."""
        p = self.probabilities.astype(np.float64).ravel()
        return self.labels.ravel().astype(np.int64), np.column_stack([1 - p, p])

    @property
    def headline(self) -> float:
        """The figure that epochs are chosen by."""
        return self.mean_average_precision

    @property
    def shown(self) -> dict[str, float]:
        """The figures of a table, by heading."""
        return {"mAP": self.mean_average_precision, "macro-F1": self.macro_f1, "micro-F1": self.micro_f1}

    @property
    def validation(self) -> dict[str, float]:
        """The figures of an epoch's row in the history."""
        return {"val_map": self.mean_average_precision, "val_macro_f1": self.macro_f1, "val_nll": self.nll}

    def to_json(self, class_names: Sequence[str]) -> dict[str, Any]:
        """The figures as plain values; classes without images are left out of `per_class`."""
        rows = zip(class_names, self.per_class.tolist(), self.class_f1.tolist(), self.thresholds.tolist(), strict=True)
        known = [row for row in rows if row[1] == row[1]]  # NaN differs from itself
        return {
            "mean_average_precision": self.mean_average_precision,
            "macro_f1": self.macro_f1,
            "micro_f1": self.micro_f1,
            "nll": self.nll,
            "per_class": {name: precision for name, precision, _, _ in known},
            "per_class_f1": {name: f1 for name, _, f1, _ in known},
            "thresholds": dict(zip(class_names, self.thresholds.tolist(), strict=True)),
        }


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
