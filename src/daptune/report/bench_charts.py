"""Figures of a bench report: the overview, few-shot curves and bars of differences (the paper's Figures 4 and 5)."""

import numpy as np

from daptune.metrics import PairedDifference, mean_interval
from daptune.report.board import Board, Summary, verdict
from daptune.report.svg import DOWN, INK, RULE, SERIES, SOFT, UP, WIDTH, Figure, colour_of, finished, panel
from daptune.report.table import file_name

Bars = dict[str, PairedDifference | float]
"""name -> the difference with its interval, or the plain difference of means where bits are missing; shares."""


def overview_figure(board: Board) -> Figure:
    """Accuracy of each method at the most shots, mean over data sets, the best on top, each seed a small point."""
    shots = board.top_shots
    found = {label: board.mean_over(board.datasets, label, shots) for label in board.labels}
    known = sorted(((label, s) for label, s in found.items() if s is not None), key=lambda item: item[1].mean)
    where = board.datasets[0] if len(board.datasets) == 1 else f"mean of {len(board.datasets)} data sets"
    with panel(WIDTH, 1.15 + 0.29 * len(known)) as (drawing, axes):
        for place, (label, summary) in enumerate(known):
            colour = SERIES[0] if label == board.focus else SOFT
            values = [100 * value for value in summary.values]
            axes.axhline(place, color=RULE, linewidth=0.6, zorder=1)
            axes.plot(values, [place] * len(values), "o", color=colour, markersize=4, alpha=0.45, markeredgewidth=0)
            axes.plot(100 * summary.mean, place, "|", color=colour, markersize=13, markeredgewidth=3)
            axes.annotate(
                f"{100 * summary.mean:.1f}", (1.02, place), xycoords=("axes fraction", "data"), va="center",
                fontsize=9, fontweight="bold" if label == board.focus else "normal", annotation_clip=False,
            )  # fmt: skip
        axes.set_yticks(range(len(known)), [label for label, _ in known])
        for text in axes.get_yticklabels():
            text.set(color=INK, fontweight="bold" if text.get_text() == board.focus else "normal")
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.6, len(known) - 0.4)
        axes.margins(x=0.08)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_title(f"{shots} images a class, {where}", fontsize=10)
        axes.set_xlabel("accuracy, %")
        words = ", ".join(f"{label} {100 * summary.mean:.1f}" for label, summary in reversed(known))
        return finished(drawing, "overview", f"accuracy in per cent with {shots} images a class, {where}: {words}")


def fewshot_figures(board: Board) -> list[Figure]:
    """Accuracy against images a class: a panel for the mean over data sets where there are several, then one each."""
    panels = [("mean of data sets", board.datasets)] if len(board.datasets) > 1 else []
    panels += [(name, (name,)) for name in board.datasets]
    return [figure for title, datasets in panels if (figure := _curves(board, title, datasets)) is not None]


def _curves(board: Board, title: str, datasets: tuple[str, ...]) -> Figure | None:
    """Mean over seeds, its 95 % interval (Student's t over seeds) as a band, each seed as a point."""
    lines: dict[str, dict[int, Summary]] = {}
    for label in board.labels:
        found = {shots: board.mean_over(datasets, label, shots) for shots in board.shots}
        lines[label] = {shots: summary for shots, summary in found.items() if summary is not None}
    lines = {label: points for label, points in lines.items() if points}
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
        room = max(2.0, 0.08 * (max(seen) - min(seen)))
        axes.set_ylim(min(seen) - room, max(seen) + room)  # by what was measured: bands of few seeds are very wide
        axes.set_xticks(list(places.values()), [str(shots) for shots in places])
        axes.set_xlim(-0.15, len(places) - 0.85)
        axes.set(title=title, xlabel="images a class", ylabel="accuracy, %")
        drawing.legend(loc="outside lower center", ncols=3, handlelength=1.6, columnspacing=1.2)
        best = max(lines, key=lambda label: list(lines[label].values())[-1].mean)
        words = f"{title}: accuracy against images a class for {', '.join(lines)}; highest at the end: {best}"
        return finished(drawing, f"fewshot-{file_name(title)}", words)


def difference_figures(board: Board, shots: int) -> list[Figure]:
    """With one data set a bar for each of the others; with several a panel for each of them, a bar a data set."""
    if len(board.datasets) == 1:
        bars = {other: found for other in board.others if (found := _bar(board, other, board.datasets, shots))}
        title = f"{board.focus} minus each of the others"
        return [_bars(bars, title, "differences")] if bars else []
    figures = []
    for other in board.others:
        each = {name: found for name in board.datasets if (found := _bar(board, other, (name,), shots))}
        if not each:
            continue
        each = dict(sorted(each.items(), key=lambda item: -_value(item[1])))
        if len(each) == len(board.datasets) and (mean := _bar(board, other, board.datasets, shots)):
            each["mean"] = mean
        figures.append(_bars(each, f"{board.focus} minus {other}", f"differences-{file_name(other)}"))
    return figures


def _bar(board: Board, other: str, datasets: tuple[str, ...], shots: int) -> PairedDifference | float | None:
    if (found := board.difference(board.focus, other, datasets, shots)) is not None:
        return found
    ours, theirs = (board.mean_over(datasets, label, shots) for label in (board.focus, other))
    return None if ours is None or theirs is None else ours.mean - theirs.mean


def _bars(bars: Bars, title: str, name: str) -> Figure:
    """Horizontal bars, best on top; filled where the interval leaves zero out, else pale."""
    with panel(WIDTH, 1.25 + 0.3 * len(bars)) as (drawing, axes):
        axes.axvline(0, color=SOFT, linewidth=1)
        ends = []
        for place, found in enumerate(reversed(bars.values())):
            value = 100 * _value(found)
            colour = UP if value >= 0 else DOWN
            known = isinstance(found, PairedDifference)
            clear = isinstance(found, PairedDifference) and verdict(found) != "level"
            axes.barh(place, value, height=0.62, color=colour, alpha=0.9 if clear else 0.38, linewidth=0)
            low, high = (100 * found.low, 100 * found.high) if isinstance(found, PairedDifference) else (value, value)
            if known:
                axes.plot([low, high], [place, place], color=INK, linewidth=1.1)
            ends += [low, high, value, 0.0]
            outer = max(high, value, 0.0) if value >= 0 else min(low, value, 0.0)
            axes.annotate(
                f"{value:+.1f}".replace("-", "−"),
                (outer, place),
                xytext=(5 if value >= 0 else -5, 0),
                textcoords="offset points",
                ha="left" if value >= 0 else "right",
                va="center",
                fontsize=9,
            )
        if "mean" in bars:
            axes.axhline(0.5, color=SOFT, linewidth=0.8)
        room = 0.17 * max(max(ends) - min(ends), 1.0)
        axes.set_xlim(min(ends) - (room if min(ends) < 0 else 0.2 * room), max(ends) + room)
        axes.set_ylim(-0.6, len(bars) - 0.4)
        axes.set_yticks(range(len(bars)), list(reversed(bars)))
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("points of accuracy")
        words = ", ".join(f"{label} {100 * _value(found):+.1f}" for label, found in bars.items())
        return finished(drawing, name, f"{title}, in points: {words}")


def _value(found: PairedDifference | float) -> float:
    return found.difference if isinstance(found, PairedDifference) else found
