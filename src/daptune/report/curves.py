"""The few-shot curves (the paper's Figure 4): accuracy against images a class, a panel a data set."""

import numpy as np

from daptune.metrics import mean_interval
from daptune.report.compare import Board, Summary
from daptune.report.svg import SOFT, Figure, colour_of, finished, panel
from daptune.report.table import file_name


def fewshot_figures(board: Board) -> list[Figure]:
    """A panel for the mean over data sets where there are several, then one a data set."""
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
