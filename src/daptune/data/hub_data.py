"""Hugging Face style data sets, known by their shape: column names, rows by index, splits as a dict.

The `datasets` package is not imported. Labels are read as one column, in which a cell is a label or a list of them; an
image is decoded when its row is asked for.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daptune.data.labels import check_single, index_labels, index_splits, is_blank, is_list, is_whole, leading
from daptune.data.multi_label import index_rows, learned_names, names_in
from daptune.data.table import DatasetItem, ImageSource, ImageTable, Splits, split_kind
from daptune.data.tabular import IMAGE_COLUMNS, LABEL_COLUMNS, find_column
from daptune.errors import DataError

LIST_COLUMNS = ("labels", "classes", "targets", "class_names", "categories", "tags")
"""Usual names of a column of lists, besides `LABEL_COLUMNS`."""

_log = logging.getLogger("daptune")


def is_dataset(source: object) -> bool:
    """Has rows and columns (or features) as a Hugging Face data set has."""
    return hasattr(source, "__getitem__") and (hasattr(source, "column_names") or hasattr(source, "features"))


def read_dataset(source: Any, label_names: Sequence[str] | None = None, *, multi_label: bool = False) -> Splits:
    """Read a data set, or a dict of them by split name; splits without labels are left out.

    multi_label: a cell of the label column is a list of labels, `a|b` or one label. The classes are those of the
    column's ClassLabel; without one, those of the training images. One label an image that is -1 means none is known.

    Raises DataError for columns that cannot be told, for lists without `multi_label`, and for an unknown class.
    """
    parts: dict[str, Any] = {}
    for name, part in source.items() if isinstance(source, Mapping) else [("train", source)]:
        if not is_dataset(part) or not hasattr(part, "__len__"):
            raise DataError(
                f"split {name!r}: expected a data set with rows, columns and a length, found "
                f"{type(part).__name__}; load it without streaming."
            )
        kind = split_kind(str(name))
        if kind in parts:
            raise DataError(f"the data set has two {kind} splits; keep one of them.")
        if kind is None:
            _log.warning("split %r of the data set is none of train, val, test and was left out", name)
        elif len(part):
            parts[kind] = _plain(part)
    if not parts:
        found = ", ".join(map(str, source)) or "none"
        raise DataError(f"expected a data set with rows in a train, val or test split, found {found}.")
    columns = {kind: (_image_column(part), _label_column(part, multi_label)) for kind, part in parts.items()}
    labels = {kind: _cells(parts[kind], columns[kind][1]) for kind in parts}
    if not multi_label:
        check_single([cell for cells in labels.values() for cell in cells], "the data set")
    labels = {kind: cells for kind, cells in labels.items() if any(_has_label(cell, multi_label) for cell in cells)}
    if not labels:
        raise DataError(f"the {' and '.join(parts)} split has no labels (all are -1 or empty); add them first.")
    for kind in parts.keys() - labels.keys() if multi_label else ():
        _log.warning("the %s split of the data set has no label on any of its images and was left out", kind)
    lead = leading(labels)
    own_names = _class_names(_features(parts[lead]).get(columns[lead][1]))
    indices, classes = (_index_several if multi_label else _index)(labels, own_names, label_names)
    tables = {
        kind: ImageTable(
            tuple(DatasetItem(parts[kind], row, columns[kind][0]) for row in range(len(parts[kind]))),
            indices[kind],
            classes,
        )
        for kind in labels
    }
    return Splits.of(tables)


def dataset_images(part: Any) -> list[ImageSource]:
    """The images of a data set in its order, decoded as each row is asked for. Raises DataError without any column."""
    plain = _plain(part)
    column = _image_column(plain)
    return [DatasetItem(plain, row, column) for row in range(len(plain))]


def _plain(part: Any) -> Any:
    """Without an output format such as "torch", whose images are tensors; a user's own transform stays."""
    kind = getattr(part, "format", {}).get("type")
    return part.with_format(None) if kind not in (None, "custom") else part


def _features(part: Any) -> Mapping[str, Any]:
    features = getattr(part, "features", None)
    return features if isinstance(features, Mapping) else {}


def _image_column(part: Any) -> str:
    """By type (Image) where exactly one has it, else by name."""
    features, names = _features(part), _names(part)
    pictures = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    column = pictures[0] if len(pictures) == 1 else find_column(pictures or names, IMAGE_COLUMNS)
    if column is None:
        raise _missing("image", names)
    return column


def _label_column(part: Any, multi_label: bool) -> str:
    """By type (ClassLabel, or with `multi_label` a list of it) where exactly one has it, else by name."""
    names, features = _names(part), _features(part)
    typed = [name for name, feature in features.items() if _class_names(feature)]
    lists = [name for name in typed if _element(features[name]) is not None]
    single = [name for name in typed if name not in lists]
    wanted = (*LABEL_COLUMNS, *LIST_COLUMNS)
    several = [name for name, feature in features.items() if _element(feature) is not None]
    for group in (lists, single) if multi_label else (single,):
        if len(group) == 1:
            return group[0]
        if group:
            names = group
            break
    column = find_column(names, wanted if multi_label else LABEL_COLUMNS)
    if column is None and not multi_label and not single:  # its lists are refused with what to type
        column = lists[0] if len(lists) == 1 else find_column(lists or several, wanted)
    if column is None:
        raise _missing("label", _names(part))
    return column


def _element(feature: Any) -> Any:
    """What the cells of a column are lists of, as `List` or `Sequence` says, or a list of one; None for no lists."""
    if isinstance(feature, list):
        return feature[0] if len(feature) == 1 else None
    return getattr(feature, "feature", None)


def _class_names(feature: Any) -> list[str] | None:
    """The names of a ClassLabel, or of lists of it; None without."""
    element = _element(feature)
    found: list[str] | None = getattr(feature if element is None else element, "names", None)
    return found


def _names(part: Any) -> list[str]:
    return list(getattr(part, "column_names", None) or _features(part))


def _missing(what: str, names: Sequence[str]) -> DataError:
    return DataError(
        f"expected one {what} column in the data set, found {', '.join(names) or 'none'}; "
        f"rename the one to use: dataset.rename_column(..., {what!r})."
    )


def _cells(part: Any, column: str) -> list[Any]:
    try:
        cells = part[column]  # one column, images untouched
        values = cells.tolist() if hasattr(cells, "tolist") else list(cells)
    except (TypeError, KeyError, IndexError, ValueError):
        values = [part[row][column] for row in range(len(part))]
    if len(values) != len(part):
        raise DataError(f"column {column!r} has {len(values)} labels for {len(part)} rows.")
    return values


def _has_label(cell: Any, multi_label: bool) -> bool:
    return any(label != -1 for label in (_row(cell) if multi_label else [cell]))


def _index(
    labels: Mapping[str, list[Any]], own_names: Sequence[str] | None, label_names: Sequence[str] | None
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Class indices by split, and the class names."""
    if own_names is not None and label_names is not None:  # the integers mean the data set's own names
        labels = {
            kind: [own_names[i] for i in index_labels(values, own_names, where="the data set")[0]]
            for kind, values in labels.items()
        }
    return index_splits(labels, own_names if label_names is None else label_names, where="the data set")


def _index_several(
    labels: Mapping[str, list[Any]], own_names: Sequence[str] | None, label_names: Sequence[str] | None
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Indicator matrices (n, C) by split, and the class names."""
    rows = {kind: [_row(cell) for cell in cells] for kind, cells in labels.items()}
    names = label_names if own_names is None else own_names
    if names is None:
        lead = leading(rows)
        names = learned_names(rows[lead], [row for own in rows.values() for row in own], "the data set", lead)
        # integers were named by their digits
        rows = {kind: [[str(x) if is_whole(x) else x for x in row] for row in own] for kind, own in rows.items()}
    found = {kind: index_rows(own, names, f"the data set, {kind}") for kind, own in rows.items()}
    if own_names is not None and label_names is not None:
        spoken = {
            kind: [[own_names[c] for c in np.flatnonzero(row).tolist()] for row in own]
            for kind, (own, _) in found.items()
        }
        found = {kind: index_rows(own, label_names, f"the data set, {kind}") for kind, own in spoken.items()}
    return {kind: own for kind, (own, _) in found.items()}, next(iter(found.values()))[1]


def _row(cell: Any) -> list[object]:
    """The labels in a cell: a list of them, `a|b`, one, or none."""
    if is_list(cell):
        return list(cell)
    return [] if is_blank(cell) else list(names_in(cell)) if isinstance(cell, str) else [cell]
