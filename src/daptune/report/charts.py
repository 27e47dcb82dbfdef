"""Bars of differences (the paper's Figure 5): how much better or worse than each of the others, with intervals."""

from daptune.metrics import PairedDifference
from daptune.report.compare import Board, verdict
from daptune.report.svg import DOWN, INK, RULE, SERIES, SOFT, UP, WIDTH, Figure, finished, panel
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
