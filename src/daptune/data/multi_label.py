"""Images with any number of labels: `a|b` in a table, lists of names, or an indicator matrix.

The labels of such a table are an indicator matrix (n, C) of bool in place of class indices (n,). A row without any
label is an image of none of the classes.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daptune.data.labels import index_labels, is_blank, is_list, refuse_untrained
from daptune.data.table import ImageTable, Splits
from daptune.errors import DataError

JOIN = "|"
"""Separates the labels of an image in a cell of a table."""
Indicator = NDArray[np.bool_]


def cell_text(cell: object) -> str:
    """A cell of a table as text, `a|b` for a list of labels, "" for none."""
    if is_list(cell):
        return JOIN.join(map(str, cell))
    return "" if is_blank(cell) else str(cell)


def names_in(cell: str) -> list[str]:
    """The labels in a cell `a|b`, each once, in their order."""
    return list(dict.fromkeys(filter(None, map(str.strip, cell.split(JOIN)))))


def index_rows(
    rows: Sequence[Sequence[object]], label_names: Sequence[str] | None, where: str
) -> tuple[Indicator, tuple[str, ...]]:
    """The labels of n images as an indicator matrix (n, C), and the class names, as by `index_labels`."""
    flat = [label for row in rows for label in row]
    if not flat and label_names is None:
        raise DataError(f"{where}: expected labels, found none in {len(rows)} images; give some a label.")
    indices, names = index_labels(flat, label_names, where=where)
    if strange := [name for name in names if JOIN in name]:
        raise DataError(f"{where}: the class name {strange[0]!r} holds {JOIN!r}, which separates labels; rename it.")
    found = np.zeros((len(rows), len(names)), dtype=np.bool_)
    found[np.repeat(np.arange(len(rows)), [len(row) for row in rows]), indices] = True
    return found, names


def learned_names(
    trained: Sequence[Sequence[object]], given: Sequence[Sequence[object]], where: str, lead: str
) -> tuple[str, ...]:
    """The class names in the lists of labels of the `lead` images, which define the classes.

    Raises DataError, prefixed by `where`, for a class in `given`, all lists, that they do not have.
    """
    _, names = index_rows(trained, None, f"{where}, {lead}")
    refuse_untrained([str(label) for row in given for label in row], names, where, lead)
    return names


def read_indicator(labels: Any, where: str) -> Indicator | None:
    """An indicator matrix (n, C) of 0 and 1, given as a 2-D array; None for other labels."""
    if not isinstance(labels, np.ndarray) or labels.ndim != 2:
        return None
    if not np.isin(labels, (0, 1)).all():
        raise DataError(f"{where}: expected 0 and 1 in an indicator matrix (images, classes), found other values.")
    return labels.astype(np.bool_)


def in_several(splits: Splits, label_names: Sequence[str] | None, where: str) -> Splits:
    """Tables of one label per image with labels as an indicator matrix; a class called `a|b` is the classes a and b.

    Without `label_names` the training images define the classes. Tables that have such a matrix already stay. Raises
    DataError for a class that is unknown.
    """
    present = splits.present()
    if not present or next(iter(present.values())).multi_label:
        return splits
    joined = splits.whole().class_names
    lead, first = next(iter(present.items()))
    rows = [names_in(name) for name in joined]
    if label_names is None:
        label_names = learned_names([rows[place] for place in np.unique(first.labels)], rows, where, lead)
    matrix, names = index_rows(rows, label_names, where)
    return splits.each(lambda table: replace(table, labels=matrix[table.labels], class_names=names))


def draw_rows(
    table: ImageTable, wanted: Sequence[int], keep: Sequence[int], stream: random.Random
) -> NDArray[np.int64]:
    """Rows of which at least `wanted` show each class, where there are as many, in order: images count for all labels.

    Both lists have an entry for each class and a last one for the images without labels; at least `keep` of each stay
    undrawn. The classes are filled one after the other, that with the fewest images first, as in the iterative
    stratification of Sechidis, Tsoumakas & Vlahavas (ECML PKDD 2011), by images that are not drawn yet, first those
    without labels of classes that are full.
    """
    shown = np.column_stack([table.labels, ~table.labels.any(axis=1)])  # (n, C + 1)
    left, drawn = shown.sum(axis=0), np.zeros(len(table), dtype=np.bool_)
    for group in np.argsort(left, kind="stable"):
        members = np.flatnonzero(shown[:, group] & ~drawn).tolist()
        lacking = wanted[group] - int((shown[:, group] & drawn).sum())
        full = shown[drawn].sum(axis=0) >= wanted
        full[group] = False
        for row in sorted(stream.sample(members, len(members)), key=(shown & full).sum(axis=1).__getitem__):
            if lacking <= 0:
                break
            if (left[shown[row]] > np.asarray(keep)[shown[row]]).all():
                drawn[row] = True
                left[shown[row]] -= 1
                lacking -= 1
    return np.flatnonzero(drawn).astype(np.int64)
