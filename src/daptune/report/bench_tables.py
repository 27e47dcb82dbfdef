"""The tables of a bench report."""

from collections.abc import Iterable, Sequence

import numpy as np

from daptune.metrics import holm
from daptune.report.board import Board, Summary, harmonic, summarise, verdict
from daptune.report.table import Cell, Table, file_name, mark_best, points, share, text_row

NAMES = {
    "text_distance": "distance between classes' texts ↑",
    "uniformity": "uniformity of texts ↓",
    "prototype_distance": "image to its prototype ↓",
    "silhouette": "silhouette of images ↑",
}
"""Dispersion measures as columns; the arrow is the side that the losses push to."""


TONES = {"ahead": "up", "behind": "down", "level": ""}


def shots_tables(board: Board) -> list[Table]:
    """Accuracy by method and shots: of the mean over data sets where there are several, then of each."""
    parts = [("mean", board.datasets)] if len(board.datasets) > 1 else []
    parts += [(name, (name,)) for name in board.datasets]
    tables = []
    for name, datasets in parts:
        rows = []
        for label in board.labels:
            found = [board.mean_over(datasets, label, shots) for shots in board.shots]
            if any(found):
                rows.append(text_row(label, *map(_cell, found)))
        columns = ("method", *(f"{shots} shot{'s' if shots > 1 else ''}" for shots in board.shots))
        title = f"Mean over {len(datasets)} data sets" if name == "mean" else name
        caption = f"{title}: accuracy on test images, per cent, mean ± standard deviation over seeds"
        tables.append(Table(f"fewshot-{file_name(name)}", caption, columns, mark_best(rows, range(1, len(columns)))))
    return tables


def significance_table(board: Board, name: str, splits: Sequence[str] = ("test",)) -> Table | None:
    """Each difference to the focus with its interval, p value, and p value adjusted for their number."""
    found = []
    for datasets in _parts(board):
        for shots in board.shots:
            for split in splits:
                for other in board.others:
                    if (d := board.difference(board.focus, other, datasets, shots, (split,))) is not None:
                        found.append((_title(datasets), split, shots, other, d))
    if not found:
        return None
    rows = []
    for (title, split, shots, other, d), adjusted in zip(found, holm([row[-1].p_value for row in found]), strict=True):
        change = points(d.difference, tone=TONES[verdict(d)])
        p, q = (Cell("< 0.001" if v < 0.001 else f"{v:.3f}", v) for v in (d.p_value, adjusted))
        rows.append(text_row(other, title, split, Cell(str(shots), shots), change, points(d.low), points(d.high), p, q))
    better = f"{board.focus} better by"
    columns = ("compared with", "learned on", "images", "shots", better, "from", "to", "p", "p, Holm")
    return Table(f"significance-{name}", f"{name}: {len(rows)} comparisons", columns, tuple(rows), left=3, group=3)


def targets_table(board: Board, name: str, dataset: str) -> Table:
    """Learned on one data set, tested on it and on others: a column each, and the mean over the others."""
    shots = board.top_shots
    targets = targets_of(board, dataset)
    rows = []
    for label in board.labels:
        runs = board.rows(label, dataset, shots)
        means = [np.mean([run.accuracy[t] for t in targets]) for run in runs if all(t in run.accuracy for t in targets)]
        cells = [_cell(board.summary(label, dataset, shots, split)) for split in ("test", *targets)]
        rows.append(text_row(label, *cells, _cell(summarise(map(float, means)))))
    columns = ("method", f"{dataset} (source)", *(t.removeprefix(f"{dataset}/") for t in targets), "mean of targets")
    caption = f"Learned from {shots} images a class of {dataset}: accuracy, per cent, mean ± deviation over seeds"
    file = name if len(board.datasets) == 1 else f"{name}-{file_name(dataset)}"
    return Table(file, caption, columns, mark_best(rows, range(1, len(columns))))


def targets_of(board: Board, dataset: str | None = None) -> tuple[str, ...]:
    """What was measured beside the data set itself, by all results or by those of one data set."""
    own = [result for result in board.results if dataset in (None, result.dataset)]
    return tuple(dict.fromkeys(target for result in own for target in result.targets))


def ablation_table(board: Board, shots: int) -> Table:
    """Accuracy of each combination of losses, and its difference to the first, which has none of them."""
    labels = board.labels
    first = next(label for label in ("coop_vpt", labels[0]) if label in labels)
    rows: list[tuple[Cell, ...]] = []
    for datasets in _parts(board):
        block = []
        for label in labels:
            accuracy = _cell(board.mean_over(datasets, label, shots))
            block.append(text_row(label, _title(datasets), accuracy, *_change(board, label, first, datasets, shots)))
        rows += mark_best(block, (2,))
    caption = (
        f"{shots} images a class: accuracy, per cent, mean ± deviation over seeds, and the change to {first} with its "
        "95 % interval, points"
    )
    columns = ("losses", "data set", "accuracy", "change", "from", "to")
    return Table("ablation", caption, columns, tuple(rows), left=2, group=1)


def base_to_new_table(board: Board, shots: int) -> Table:
    """Learned on half of the classes, tested on both halves: a row a data set and method, the mean first."""
    rows: list[tuple[Cell, ...]] = []
    for datasets in _parts(board):
        block = []
        for label in board.labels:
            base, new = (board.mean_over(datasets, label, shots, split) for split in ("base", "new"))
            both = share(harmonic(base.mean, new.mean)) if base is not None and new is not None else Cell("–")
            block.append(text_row(label, _title(datasets), _cell(base), _cell(new), both))
        rows += mark_best(block, (2, 3, 4))
    caption = (
        f"Base to new, {shots} images of each base class: accuracy, per cent, mean ± deviation over seeds; H is the "
        "harmonic mean of the two means"
    )
    return Table("base2new", caption, ("method", "data set", "base", "new", "H"), tuple(rows), left=2, group=1)


def dispersion_table(board: Board, shots: int) -> Table | None:
    """How spread the classes' texts are and how gathered the images of a class, mean over seeds."""
    rows = []
    for dataset in board.datasets:
        for label in board.labels:
            found = [run.dispersion for run in board.rows(label, dataset, shots) if run.dispersion]
            summaries = [summarise(v for d in found if (v := d.get(name)) is not None) for name in NAMES]
            if any(summaries):
                cells = [_plain(summary) for summary in summaries]
                rows.append(text_row(label, dataset, *cells))
    caption = f"Features after learning from {shots} images a class, on test images: mean ± deviation over seeds"
    columns = ("method", "data set", *NAMES.values())
    return Table("dispersion", caption, columns, tuple(rows), left=2, group=1) if rows else None


def cost_table(board: Board) -> Table:
    """What each method learns and takes."""
    rows = []
    for label in board.labels:
        own = [r for r in board.results if r.label == label]
        seconds = summarise(r.seconds for r in own if r.seconds is not None)
        memory = max((r.peak_bytes for r in own if r.peak_bytes is not None), default=None)
        learned = {r.learned for r in own if r.learned is not None}
        spread = f"{min(learned):,}" + (f" to {max(learned):,}" if len(learned) > 1 else "") if learned else "–"
        rows.append(
            text_row(
                label,
                Cell(spread, float(max(learned)) if learned else None),
                Cell("–" if seconds is None else f"{seconds.mean:.1f}", seconds.mean if seconds else None),
                Cell("–" if memory is None else f"{memory / 1e6:,.0f}", None if memory is None else memory / 1e6),
                Cell(str(len(own)), len(own)),
            )
        )
    columns = ("method", "numbers learned", "seconds a run, mean", "peak memory, MB", "runs")
    return Table("costs", "What each method learns and takes, over all runs of this report", columns, tuple(rows))


def all_results_table(boards: Iterable[Board]) -> Table:
    """Every run, with the accuracy of the last step and of the epoch that validation chose."""
    rows = []
    for board in boards:
        for r in sorted(board.results, key=lambda r: (r.dataset, r.shots, board.labels.index(r.label), r.seed)):
            chosen = r.selected or {}
            whole = [r.accuracy.get(name) for name in ("test", "val")]
            whole.append(chosen["test"] if isinstance(chosen.get("test"), int | float) else None)
            rest = ", ".join(f"{name} {100 * r.accuracy[name]:.1f}" for name in r.targets)
            numbers = Cell(str(r.shots), r.shots), Cell(str(r.seed), r.seed)
            rows.append(text_row(r.experiment, r.label, r.dataset, rest or "–", *numbers, *map(share, whole)))
    columns = ("experiment", "method", "data set", "other images", "shots", "seed", "test", "val", "test by val")
    return Table("results", "Every run: accuracy, per cent", columns, tuple(rows), left=4)


def _parts(board: Board) -> list[tuple[str, ...]]:
    """The mean over data sets where there are several, then each."""
    return ([board.datasets] if len(board.datasets) > 1 else []) + [(name,) for name in board.datasets]


def _title(datasets: tuple[str, ...]) -> str:
    return datasets[0] if len(datasets) == 1 else f"mean of {len(datasets)}"


def _change(board: Board, label: str, first: str, datasets: tuple[str, ...], shots: int) -> tuple[Cell, Cell, Cell]:
    """The difference and its interval; dashes where there is none."""
    none = Cell("–")
    if label == first:
        return none, none, none
    if (d := board.difference(label, first, datasets, shots)) is None:
        ours, theirs = (board.mean_over(datasets, name, shots) for name in (label, first))
        return (none if ours is None or theirs is None else points(ours.mean - theirs.mean)), none, none
    return points(d.difference, tone=TONES[verdict(d)]), points(d.low), points(d.high)


def _cell(summary: Summary | None) -> Cell:
    return share(None) if summary is None else share(summary.mean, summary.deviation)


def _plain(summary: Summary | None) -> Cell:
    if summary is None:
        return Cell("–")
    known = summary.deviation == summary.deviation
    text = f"{summary.mean:.3f}" + (f" ± {summary.deviation:.3f}" if known else "")
    text = text.replace("-", "−")
    return Cell(text, summary.mean, summary.deviation if known else None)
