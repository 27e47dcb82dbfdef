"""Figures of one fit: losses, the confusion matrix, and the reliability diagram."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from daptune import metrics
from daptune.measured import Measured
from daptune.report.svg import FACE, INK, RULE, SERIES, SMALLEST, SOFT, WIDTH, Figure, finished, panel
from daptune.train import EpochRow

MOST_CLASSES = 40  # maximum number of classes of a readable confusion matrix


def loss_figures(rows: Sequence[EpochRow]) -> list[Figure]:
    """A panel for each loss term, means over an epoch, and one for accuracy."""
    epochs = [row.epoch for row in rows]
    names = list(rows[0].losses)
    if len(names) == 2:  # the total equals the only term
        names.remove("total")
    figures = []
    for name in names:
        with panel(height=2.9) as (drawing, axes):
            values = [row.losses.get(name, float("nan")) for row in rows]
            axes.plot(epochs, values, color=SERIES[0])
            axes.set(title=name.replace("_", " "), xlabel="epoch")
            axes.set_ylim(bottom=min(0.0, *values), top=None)  # from zero, so that a small change looks small
            verb = "rises" if values[-1] >= values[0] else "falls"
            words = f"{name} {verb} from {values[0]:.3g} to {values[-1]:.3g} over {len(rows)} epochs"
            figures.append(finished(drawing, f"loss-{name.replace('_', '-')}", words))
    every = {"training batches": [row.accuracy for row in rows], "validation": [row.val_headline for row in rows]}
    lines = {name: found for name, found in every.items() if any(value is not None for value in found)}
    if lines:
        with panel(height=2.9) as (drawing, axes):
            for (name, found), colour in zip(lines.items(), SERIES, strict=False):
                x, y = zip(*((e, v) for e, v in zip(epochs, found, strict=True) if v is not None), strict=True)
                axes.plot(x, 100 * np.array(y, dtype=float), color=colour, label=name)
            figure = "accuracy" if rows[-1].val_map is None else "mAP"
            axes.set(title=f"{figure}, %", xlabel="epoch", ylim=(0, 100))
            axes.legend(loc="best")
            figures.append(finished(drawing, "accuracy", f"{figure} by epoch of {' and '.join(lines)}"))
    return figures


def confusion_figure(matrix: NDArray[np.int64], names: Sequence[str]) -> Figure | None:
    """Rows are true classes, columns predicted ones, shades the share of the row; None for too many classes.

    Correct predictions and mistakes have different colours, so that rare mistakes are visible.
    """
    size = len(names)
    if size > MOST_CLASSES:
        return None
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 1.8 + 0.3 * size  # a cell holds three digits
    with panel(max(side + 0.8, WIDTH), side + 0.5) as (drawing, axes):
        from matplotlib.patches import Rectangle

        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour, share = SERIES[0] if row == column else SERIES[1], float(shares[row, column])
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, color=colour, alpha=0.15 + 0.8 * share, linewidth=0))
            axes.annotate(
                str(matrix[row, column]), (column, row), ha="center", va="center", fontsize=SMALLEST,
                color=FACE if share > 0.55 else INK,
            )  # fmt: skip
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="predicted", ylabel="true", aspect="equal")
        shown = [name if len(name) <= 22 else name[:21] + "…" for name in names]
        axes.set_xticks(range(size), shown, rotation=90)
        axes.set_yticks(range(size), shown)
        axes.set_xticks(np.arange(size) - 0.5, minor=True)
        axes.set_yticks(np.arange(size) - 0.5, minor=True)
        axes.tick_params(which="both", length=0)
        axes.grid(visible=False)
        axes.grid(which="minor", color=RULE, linewidth=0.4)
        right = int(np.trace(matrix))
        return finished(drawing, "confusion", f"confusion matrix: {right} of {int(matrix.sum())} images are correct")


def reliability_figures(found: Mapping[str, Measured]) -> list[Figure]:
    """A diagram for each method, by name: accuracy by confidence in 15 bins of equal width.

    Guo et al. 2017, figure 1. Larger points have more images in their bin.
    """
    figures = []
    for name, measured in found.items():
        error = measured.calibration_error
        with panel(height=4.4) as (drawing, axes):
            axes.plot([0, 100], [0, 100], color=SOFT, linestyle=(0, (4, 3)), linewidth=1)
            for confidence, right in metrics.by_confidence(measured.labels, measured.probabilities):
                x, y = 100 * confidence.mean(), 100 * right.mean()
                axes.plot([x, x], [x, y], color=SERIES[1], linewidth=1.6, alpha=0.7)
                size = 3 + 13 * (len(right) / len(measured.labels)) ** 0.5
                axes.plot(x, y, "o", color=SERIES[0], markersize=size, alpha=0.85, markeredgewidth=0)
            axes.set(xlim=(0, 101), ylim=(-3, 103), xlabel="confidence, %", ylabel="accuracy, %", aspect="equal")
            axes.set_title(f"{name}: ECE {100 * error:.1f} points")
            words = f"reliability of {name}: expected calibration error {100 * error:.1f} points"
            figures.append(finished(drawing, f"reliability-{'-'.join(name.replace('_', ' ').split())}", words))
    return figures
