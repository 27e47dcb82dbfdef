"""The tables of a bench report."""

import math
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np

from daptune.bench.summary import Summary, counted, sets_text, summarise
from daptune.metrics import PairedDifference, holm
from daptune.report.board import Board, harmonic, verdict
from daptune.report.table import NOTHING, Cell, Table, file_name, mark_best, number, points, share, text_row

NAMES = {
    "text_distance": "distance between class texts ↑",
    "uniformity": "uniformity of texts ↓",
    "prototype_distance": "image to its prototype ↓",
    "silhouette": "silhouette of images ↑",
}
"""Columns of dispersion measures; the arrow is the direction that the losses favour."""
TONES = {"ahead": "up", "behind": "down", "level": ""}


def shots_tables(board: Board) -> list[Table]:
    """Accuracy by method and shots: the mean over several data sets, then each data set."""
    columns = ("method", *(counted(shots, "shot") for shots in board.shots))
    tables = []
    for datasets in board.parts:
        found = {label: [board.mean_over(datasets, label, shots) for shots in board.shots] for label in board.labels}
        rows = [text_row(label, *map(_cell, cells)) for label, cells in found.items() if any(cells)]
        title = sets_text(datasets, "Mean over ")
        caption = f"{title}: accuracy on test images in %, mean ± standard deviation over seeds"
        name = datasets[0] if len(datasets) == 1 else "mean"
        tables.append(Table(f"fewshot-{file_name(name)}", caption, columns, mark_best(rows, range(1, len(columns)))))
    return tables


def significance_table(board: Board, name: str, splits: Sequence[str] = ("test",)) -> Table | None:
    """Differences from the focus with intervals, p values and adjusted p values; None without comparisons."""
    found = []
    for datasets, shots, split, other in product(board.parts, board.shots, splits, board.others):
        if (d := board.difference(board.focus, other, datasets, shots, (split,))) is not None:
            found.append((_title(datasets), split, shots, other, d))
    if not found:
        return None
    rows = []
    for (title, split, shots, other, d), adjusted in zip(found, holm([row[-1].p_value for row in found]), strict=True):
        p, q = (Cell("< 0.001" if v < 0.001 else f"{v:.3f}", v) for v in (d.p_value, adjusted))
        rows.append(text_row(other, title, split, number(shots), *_change(d), p, q))
    better = f"{board.focus} better by"
    columns = ("compared with", "trained on", "images", "shots", better, "from", "to", "p", "p, Holm")
    return Table(f"significance-{name}", f"{name}: {len(rows)} comparisons", columns, tuple(rows), left=3, group=3)


def targets_table(board: Board, name: str, dataset: str) -> Table:
    """Accuracy after training on one data set: a column for it, for each target, and for the mean over targets."""
    shots = board.top_shots
    targets = targets_of(board, dataset)
    rows = []
    for label in board.labels:
        runs = board.rows(label, dataset, shots)
        means = [np.mean([run.accuracy[t] for t in targets]) for run in runs if all(t in run.accuracy for t in targets)]
        cells = [_cell(board.mean_over((dataset,), label, shots, split)) for split in ("test", *targets)]
        rows.append(text_row(label, *cells, _cell(summarise(map(float, means)))))
    columns = ("method", f"{dataset} (source)", *(t.removeprefix(f"{dataset}/") for t in targets), "mean of targets")
    caption = f"Trained on {shots} images per class of {dataset}: accuracy in %, mean ± standard deviation over seeds"
    file = name if len(board.datasets) == 1 else f"{name}-{file_name(dataset)}"
    return Table(file, caption, columns, mark_best(rows, range(1, len(columns))))


def targets_of(board: Board, dataset: str | None = None) -> tuple[str, ...]:
    own = [result for result in board.results if dataset in (None, result.dataset)]
    return tuple(dict.fromkeys(target for result in own for target in result.targets))


def ablation_table(board: Board, shots: int) -> Table:
    """Accuracy of each combination of losses, and its difference from the one without them."""
    first = plain_label(board)
    rows: list[tuple[Cell, ...]] = []
    for datasets in board.parts:
        block = []
        for label in board.labels:
            accuracy = _cell(board.mean_over(datasets, label, shots))
            d = board.gap(label, first, datasets, shots) if label != first else None
            change = (NOTHING,) * 3 if d is None else _change(d)
            block.append(text_row(label, _title(datasets), accuracy, *change))
        rows += mark_best(block, (2,))
    caption = (
        f"{shots} images per class: accuracy in %, mean ± standard deviation over seeds, and the change from {first} "
        "with its 95 % interval, in percentage points"
    )
    columns = ("losses", "data set", "accuracy", "change", "from", "to")
    return Table("ablation", caption, columns, tuple(rows), left=2, group=1)


def plain_label(board: Board) -> str:
    """The baseline label of an ablation: that without dispersion losses."""
    return "coop_vpt" if "coop_vpt" in board.labels else board.labels[0]


def base_to_new_table(board: Board, shots: int) -> Table:
    """Accuracy on base and new classes: a row per data set and method, the mean first."""
    rows: list[tuple[Cell, ...]] = []
    for datasets in board.parts:
        block = []
        for label in board.labels:
            base, new = (board.mean_over(datasets, label, shots, split) for split in ("base", "new"))
            both = share(harmonic(base.mean, new.mean) if base is not None and new is not None else None)
            block.append(text_row(label, _title(datasets), _cell(base), _cell(new), both))
        rows += mark_best(block, (2, 3, 4))
    caption = (
        f"Base to new, {shots} images per base class: accuracy in %, mean ± standard deviation over seeds; H is the "
        "harmonic mean of the two means"
    )
    return Table("base2new", caption, ("method", "data set", "base", "new", "H"), tuple(rows), left=2, group=1)


def dispersion_table(board: Board, shots: int) -> Table | None:
    """Dispersion measures, mean over seeds; None if nothing was measured."""
    rows = []
    for dataset, label in product(board.datasets, board.labels):
        found = [run.dispersion for run in board.rows(label, dataset, shots) if run.dispersion]
        summaries = [summarise(v for d in found if (v := d.get(name)) is not None) for name in NAMES]
        if any(summaries):
            rows.append(text_row(label, dataset, *map(_plain, summaries)))
    caption = f"Features of test images after training on {shots} images per class: mean ± deviation over seeds"
    columns = ("method", "data set", *NAMES.values())
    return Table("dispersion", caption, columns, tuple(rows), left=2, group=1) if rows else None


def cost_table(board: Board) -> Table:
    rows = []
    for label in board.labels:
        own = [r for r in board.results if r.label == label]
        seconds = summarise(r.seconds for r in own if r.seconds is not None)
        memory = max((r.peak_bytes / 1e6 for r in own if r.peak_bytes is not None), default=None)
        learned = sorted({r.learned for r in own if r.learned is not None})
        span = " to ".join(f"{count:,}" for count in dict.fromkeys((*learned[:1], *learned[-1:])))
        size = Cell(span, float(learned[-1])) if learned else NOTHING
        time = number(None if seconds is None else seconds.mean, ".1f")
        rows.append(text_row(label, size, time, number(memory, ",.0f"), number(len(own))))
    columns = ("method", "learned parameters", "mean seconds per run", "peak memory, MB", "runs")
    return Table("costs", "Costs of each method over all runs of this report", columns, tuple(rows))


def all_results_table(boards: Iterable[Board]) -> Table:
    """Every run, with the accuracy of the last step and of the epoch selected on validation images."""
    rows = []
    for board in boards:
        for r in sorted(board.results, key=lambda r: (r.dataset, r.shots, board.labels.index(r.label), r.seed)):
            chosen = r.selected or {}
            whole = [r.accuracy.get(name) for name in ("test", "val")]
            whole.append(chosen["test"] if isinstance(chosen.get("test"), int | float) else None)
            rest = ", ".join(f"{name} {100 * r.accuracy[name]:.1f}" for name in r.targets)
            numbers = number(r.shots), number(r.seed)
            rows.append(text_row(r.experiment, r.label, r.dataset, rest or "–", *numbers, *map(share, whole)))
    columns = ("experiment", "method", "data set", "other images", "shots", "seed", "test", "val", "test by val")
    return Table("results", "Every run: accuracy in %", columns, tuple(rows), left=4)


def _title(datasets: tuple[str, ...]) -> str:
    return datasets[0] if len(datasets) == 1 else f"mean of {len(datasets)}"


def _change(d: PairedDifference) -> tuple[Cell, Cell, Cell]:
    return points(d.difference, tone=TONES[verdict(d)]), points(d.low), points(d.high)


def _cell(summary: Summary | None) -> Cell:
    return share(None) if summary is None else share(summary.mean, summary.deviation)


def _plain(summary: Summary | None) -> Cell:
    if summary is None:
        return NOTHING
    known = None if math.isnan(summary.deviation) else summary.deviation
    text = f"{summary.mean:.3f}" + ("" if known is None else f" ± {known:.3f}")
    return Cell(text.replace("-", "−"), summary.mean, known)
