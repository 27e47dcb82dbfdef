"""Hugging Face style data sets, known by their shape: column names, rows by index, splits as a dict.

The `datasets` package is not imported. Labels are read as one column; an image is decoded when its row is
asked for.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from daptune.data.labels import index_labels, index_splits, leading
from daptune.data.table import DatasetItem, ImageSource, ImageTable, Splits, split_kind
from daptune.data.tabular import IMAGE_COLUMNS, LABEL_COLUMNS, find_column
from daptune.errors import DataError

_log = logging.getLogger("daptune")


def is_dataset(source: object) -> bool:
    """Has rows and columns (or features) as a Hugging Face data set has."""
    return hasattr(source, "__getitem__") and (hasattr(source, "column_names") or hasattr(source, "features"))


def read_dataset(source: Any, label_names: Sequence[str] | None = None) -> Splits:
    """Read a data set, or a dict of them by split name; splits without labels (all -1) are left out."""
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
    columns = {kind: _columns(part) for kind, part in parts.items()}
    labels = {kind: _label_column(parts[kind], columns[kind][1]) for kind in parts}
    labels = {kind: values for kind, values in labels.items() if any(value != -1 for value in values)}
    if not labels:
        raise DataError(f"the {' and '.join(parts)} split has no labels (all are -1); add them first.")
    lead = leading(labels)
    own_names = getattr(_features(parts[lead]).get(columns[lead][1]), "names", None)
    if own_names is not None and label_names is not None:  # the integers mean the data set's own names
        labels = {
            kind: [own_names[i] for i in index_labels(values, own_names, where="the data set")[0]]
            for kind, values in labels.items()
        }
    names = own_names if label_names is None else label_names
    indices, classes = index_splits(labels, names, where="the data set")
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


def _columns(part: Any) -> tuple[str, str]:
    """The image and the label column: by type (Image, ClassLabel) where exactly one has it, else by name."""
    image, names = _image_column(part), _names(part)
    classes = [name for name, feature in _features(part).items() if getattr(feature, "names", None)]
    label = classes[0] if len(classes) == 1 else find_column(classes or names, LABEL_COLUMNS)
    if label is None:
        raise _missing("label", names)
    return image, label


def _names(part: Any) -> list[str]:
    return list(getattr(part, "column_names", None) or _features(part))


def _missing(what: str, names: Sequence[str]) -> DataError:
    return DataError(
        f"expected one {what} column in the data set, found {', '.join(names) or 'none'}; "
        f"rename the one to use: dataset.rename_column(..., {what!r})."
    )


def _label_column(part: Any, column: str) -> list[Any]:
    try:
        cells = part[column]  # one column, images untouched
        values = cells.tolist() if hasattr(cells, "tolist") else list(cells)
    except (TypeError, KeyError, IndexError, ValueError):
        values = [part[row][column] for row in range(len(part))]
    if len(values) != len(part):
        raise DataError(f"column {column!r} has {len(values)} labels for {len(part)} rows.")
    return values
