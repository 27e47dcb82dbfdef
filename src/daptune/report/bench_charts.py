"""Figures of a bench report: the overview, few-shot curves and bars of differences (the paper's Figures 4 and 5)."""

import math
from itertools import product

import numpy as np

from daptune.bench.summary import Summary, sets_text
from daptune.metrics import PairedDifference, mean_interval
from daptune.report.board import Board, verdict
from daptune.report.svg import (
    DOWN,
    INK,
    LEAST_SPAN,
    RULE,
    SERIES,
    SMALLEST,
    SOFT,
    UP,
    WIDTH,
    Figure,
    colour_of,
    finished,
    panel,
    rows_of,
    span_of_accuracies,
)
from daptune.report.table import file_name


def overview_figure(board: Board) -> Figure:
    """Accuracy of each method at the most shots, mean over data sets, best on top; small points are seeds."""
    shots = board.top_shots
    found = {label: board.mean_over(board.datasets, label, shots) for label in board.labels}
    known = sorted(((label, s) for label, s in found.items() if s is not None), key=lambda item: item[1].mean)
    where = sets_text(board.datasets, "mean of ")
    with panel(WIDTH, 1.15 + 0.29 * len(known)) as (drawing, axes):
        for place, (label, summary) in enumerate(known):
            colour = SERIES[0] if label == board.focus else SOFT
            values = [100 * value for value in summary.values]
            axes.axhline(place, color=RULE, linewidth=0.6, zorder=1)
            axes.plot(values, [place] * len(values), "o", color=colour, markersize=4, alpha=0.45, markeredgewidth=0)
            axes.plot(100 * summary.mean, place, "|", color=colour, markersize=13, markeredgewidth=3)
            axes.annotate(
                f"{100 * summary.mean:.1f}", (1.02, place), xycoords=("axes fraction", "data"), va="center",
                fontsize=SMALLEST, fontweight="bold" if label == board.focus else "normal", annotation_clip=False,
            )  # fmt: skip
        axes.set_xlim(*span_of_accuracies([100 * value for _, summary in known for value in summary.values]))
        title = f"{shots} images per class, {where}"
        rows_of(axes, [label for label, _ in known], title, "accuracy, %", bold=board.focus)
        words = ", ".join(f"{label} {100 * summary.mean:.1f}" for label, summary in reversed(known))
        return finished(drawing, "overview", f"accuracy in per cent with {title}: {words}")


def fewshot_figures(board: Board) -> list[Figure]:
    """Accuracy by images per class: a panel for the mean of several data sets, then one for each."""
    return [figure for datasets in board.parts if (figure := _curves(board, datasets)) is not None]


def _curves(board: Board, datasets: tuple[str, ...]) -> Figure | None:
    """Mean over seeds, its 95 % interval (Student's t over seeds) as a band, each seed as a point."""
    title = datasets[0] if len(datasets) == 1 else "mean of data sets"
    lines: dict[str, dict[int, Summary]] = {}
    for label, shots in product(board.labels, board.shots):
        if (summary := board.mean_over(datasets, label, shots)) is not None:
            lines.setdefault(label, {})[shots] = summary
    if not lines:
        return None
    with panel(height=3.3 + 0.22 * (-(-len(lines) // 3))) as (drawing, axes):
        places = {shots: place for place, shots in enumerate(board.shots)}
        seen: list[float] = []
        for label, points in lines.items():
            colour, marker = colour_of(label, board.labels, board.focus)
            x = [places[shots] for shots in points]
            y = [100 * summary.mean for summary in points.values()]
            seen += [100 * value for summary in points.values() for value in summary.values]
            if label == "zero_shot":
                axes.axhline(y[0], color=SOFT, linestyle=(0, (4, 3)), linewidth=1.4, label=label)
                continue
            wide = 2.4 if label == board.focus else 1.6
            axes.plot(x, y, color=colour, marker=marker, linewidth=wide, label=label, zorder=3)
            spans = [mean_interval(summary.values) for summary in points.values()]
            low, high = ([100 * getattr(span, side) for span in spans] for side in ("low", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.16 if label == board.focus else 0.07, linewidth=0)
            for place, summary in zip(x, points.values(), strict=True):
                values = 100 * np.array(summary.values)
                axes.plot([place] * len(values), values, marker, color=colour, markersize=2.6, alpha=0.55, zorder=2)
        axes.set_ylim(*span_of_accuracies(seen))  # ignores the bands, which are very wide for few seeds
        axes.set_xticks(list(places.values()), [str(shots) for shots in places])
        axes.set_xlim(-0.15, len(places) - 0.85)
        axes.set(title=title, xlabel="images per class", ylabel="accuracy, %")
        drawing.legend(loc="outside lower center", ncols=3, handlelength=1.6, columnspacing=1.2)
        best = max(lines, key=lambda label: list(lines[label].values())[-1].mean)
        words = f"{title}: accuracy by images per class for {', '.join(lines)}; highest at the end: {best}"
        return finished(drawing, f"fewshot-{file_name(title)}", words)


def difference_figures(board: Board, shots: int) -> list[Figure]:
    """For one data set a bar for each other method; for several a panel for each method with a bar per data set."""
    if len(board.datasets) == 1:
        bars = {
            other: found for other in board.others if (found := board.gap(board.focus, other, board.datasets, shots))
        }
        title = f"{board.focus} minus each other method"
        return [_bars(bars, title, "differences")] if bars else []
    figures = []
    for other in board.others:
        each = {name: found for name in board.datasets if (found := board.gap(board.focus, other, (name,), shots))}
        if not each:
            continue
        each = dict(sorted(each.items(), key=lambda item: -item[1].difference))
        if len(each) == len(board.datasets) and (mean := board.gap(board.focus, other, board.datasets, shots)):
            each["mean"] = mean
        figures.append(_bars(each, f"{board.focus} minus {other}", f"differences-{file_name(other)}"))
    return figures


def _bars(bars: dict[str, PairedDifference], title: str, name: str) -> Figure:
    """Horizontal bars, best on top; pale if the interval contains zero."""
    with panel(WIDTH, 1.25 + 0.3 * len(bars)) as (drawing, axes):
        axes.axvline(0, color=SOFT, linewidth=1)
        ends = []
        for place, found in enumerate(reversed(bars.values())):
            value = 100 * found.difference
            axes.barh(
                place, value, height=0.62, color=UP if value >= 0 else DOWN,
                alpha=0.38 if verdict(found) == "level" else 0.9, linewidth=0,
            )  # fmt: skip
            span = [0.0, value]
            if not math.isnan(found.low):
                span += [100 * found.low, 100 * found.high]
                axes.plot(span[2:], [place, place], color=INK, linewidth=1.1)
            ends += span
            outer, shift, side = (max(span), 5, "left") if value >= 0 else (min(span), -5, "right")
            axes.annotate(
                f"{value:+.1f}".replace("-", "−"), (outer, place), xytext=(shift, 0), textcoords="offset points",
                ha=side, va="center", fontsize=SMALLEST,
            )  # fmt: skip
        if "mean" in bars:
            axes.axhline(0.5, color=SOFT, linewidth=0.8)
        ends += [-LEAST_SPAN / 5, LEAST_SPAN / 5]  # as tall as it is wide, a bar of one point is a short one
        room = 0.17 * (max(ends) - min(ends))
        axes.set_xlim(min(ends) - (room if min(ends) < 0 else 0.2 * room), max(ends) + room)
        rows_of(axes, list(reversed(bars)), title, "percentage points of accuracy")
        words = ", ".join(f"{label} {100 * found.difference:+.1f}" for label, found in bars.items())
        return finished(drawing, name, f"{title}, in points: {words}")
