"""Results -> tables: methods by shots, or by what was measured, as mean and deviation over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daptune.bench.results import Result

BY_PLACE = ("domain", "crossdataset", "base2new")
"""Kinds whose columns are what was measured on; those of the others are shots."""


@dataclass(frozen=True)
class Table:
    """Cells as text, a line a method."""

    title: str
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]


def tables(rows: Sequence[Result]) -> list[Table]:
    """A table for each experiment, over data sets a mean; a cell is empty where not every data set has its result."""
    done = [row for row in rows if row.done]
    return [table for kind in dict.fromkeys(row.experiment for row in done) for table in _of_kind(kind, done)]


def accuracy_text(values: Sequence[float]) -> str:
    """`53.2 ± 0.8`: mean and standard deviation in per cent; no deviation of one value, nothing of none."""
    if not len(values):
        return ""
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"


def _of_kind(kind: str, rows: Sequence[Result]) -> list[Table]:
    own = [row for row in rows if row.experiment == kind]
    shots = sorted({row.shots for row in own})
    sets, labels = _distinct(own, "dataset"), _distinct(own, "label")
    where = sets[0] if len(sets) == 1 else f"mean over {len(sets)} data sets"
    if kind not in BY_PLACE:
        split, images = ("test", "test") if any("test" in row.accuracy for row in own) else ("val", "validation")
        cells = [(label, *(_cell(own, label, count, sets, split) for count in shots)) for label in labels]
        return [Table(f"{kind}: {where}, {images} images", ("method", *map(_shots, shots)), tuple(map(tuple, cells)))]
    places = list(dict.fromkeys(place for row in own for place in row.accuracy if place != "val"))
    if kind == "base2new":
        places = [place for place in places if place != "test"]
    found = []
    for count in shots:
        cells = [(label, *(_cell(own, label, count, sets, place) for place in places)) for label in labels]
        title = f"{kind}: learned from {where}, {_shots(count)}"
        found.append(Table(title, ("method", *places), tuple(map(tuple, cells))))
    return found


def _cell(rows: Sequence[Result], label: str, shots: int, sets: Sequence[str], place: str) -> str:
    own = [row for row in rows if (row.label, row.shots) == (label, shots) and place in row.accuracy]
    values = []
    for seed in sorted({row.seed for row in own}):
        scores = {row.dataset: row.accuracy[place] for row in own if row.seed == seed}
        if len(scores) == len(sets):
            values.append(float(np.mean(list(scores.values()))))
    return accuracy_text(values)


def _distinct(rows: Sequence[Result], name: str) -> list[str]:
    return list(dict.fromkeys(getattr(row, name) for row in rows))


def _shots(count: int) -> str:
    return "1 shot" if count == 1 else f"{count} shots"
