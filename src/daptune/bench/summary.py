"""Means of results over seeds and data sets, and the tables that `daptune bench` prints."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from daptune.bench.results import Result

BY_PLACE = ("domain", "crossdataset", "base2new")
"""Kinds of experiments with one column per measured split; the others have one per number of shots."""


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation of a share over seeds (NaN for one seed)."""

    mean: float
    deviation: float
    values: tuple[float, ...]


def summarise(values: Iterable[float]) -> Summary | None:
    """Mean and sample standard deviation; None without values."""
    x = tuple(values)
    if not x:
        return None
    return Summary(float(np.mean(x)), float(np.std(x, ddof=1)) if len(x) > 1 else math.nan, x)


def over_seeds(rows: Iterable[Result], datasets: Sequence[str], place: str) -> Summary | None:
    """`Result.scores` on the split `place` over seeds, averaged over data sets; only seeds with all of them count."""
    by_seed: dict[int, dict[str, float]] = {}
    for row in rows:
        if place in row.scores:
            by_seed.setdefault(row.seed, {})[row.dataset] = row.scores[place]
    whole = [list(found.values()) for _, found in sorted(by_seed.items()) if len(found) == len(datasets)]
    return summarise(float(np.mean(values)) for values in whole)


def share_text(value: float, spread: float | None = None) -> str:
    """`53.2 ± 0.8`: a share in per cent with its standard deviation, if known."""
    return f"{100 * value:.1f}" + ("" if spread is None or math.isnan(spread) else f" ± {100 * spread:.1f}")


def counted(count: int, noun: str) -> str:
    """`1 shot`, `4 shots`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def sets_text(datasets: Sequence[str], lead: str = "") -> str:
    """The name of a single data set; for several, `lead` and their number."""
    return datasets[0] if len(datasets) == 1 else f"{lead}{len(datasets)} data sets"


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    figure: str = "accuracy"


def tables(rows: Sequence[Result]) -> list[Table]:
    """A table for each experiment with means over data sets; a cell is empty if a data set has no result.

    Accuracies and mAP are in tables of their own.
    """
    kinds: dict[tuple[str, str], list[Result]] = {}
    for row in rows:
        if row.done:
            kinds.setdefault((row.experiment, row.figure), []).append(row)
    return [table for (kind, figure), own in kinds.items() for table in _of_kind(kind, own, figure)]


def _of_kind(kind: str, rows: Sequence[Result], figure: str) -> list[Table]:
    shots = sorted({row.shots for row in rows})
    sets = list(dict.fromkeys(row.dataset for row in rows))
    where = sets_text(sets, "mean over ")
    if kind not in BY_PLACE:
        split, images = ("test", "test") if any("test" in row.scores for row in rows) else ("val", "validation")
        cells = _cells(rows, sets, [(count, split) for count in shots])
        columns = ("method", *(counted(count, "shot") for count in shots))
        return [Table(f"{kind}: {where}, {images} images", columns, cells, figure)]
    left_out = ("val", "test") if kind == "base2new" else ("val",)
    places = list(dict.fromkeys(place for row in rows for place in row.accuracy if place not in left_out))
    found = []
    for count in shots:
        title = f"{kind}: trained on {where}, {counted(count, 'shot')}"
        found.append(Table(title, ("method", *places), _cells(rows, sets, [(count, place) for place in places])))
    return found


def _cells(
    rows: Sequence[Result], sets: Sequence[str], columns: Sequence[tuple[int, str]]
) -> tuple[tuple[str, ...], ...]:
    lines = []
    for label in dict.fromkeys(row.label for row in rows):
        cells = [label]
        for shots, place in columns:
            found = over_seeds((row for row in rows if (row.label, row.shots) == (label, shots)), sets, place)
            cells.append("" if found is None else share_text(found.mean, found.deviation))
        lines.append(tuple(cells))
    return tuple(lines)
