"""Convert labels to class indices with class names."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from daptune.errors import DataError, suggest
from daptune.names import check_class_names, name_key, sort_key

_log = logging.getLogger("daptune")
Labels = npt.NDArray[np.int64]


def index_labels(
    labels: Sequence[object], label_names: Sequence[str] | None = None, *, where: str = "the labels"
) -> tuple[Labels, tuple[str, ...]]:
    """Class indices int64 (n,) and the class names.

    Names are numbered in sorted order, or as in label_names, ignoring case, '_' and Unicode form. Integers index
    label_names; without it, each distinct integer is a class named by its digits. Digits as text are integers if
    label_names contains none of them. Raises DataError, prefixed by `where`, for an unknown or invalid label.
    """
    names = None if label_names is None else check_class_names(label_names)
    if all(map(is_whole, labels)):
        return _from_integers(np.array(labels, dtype=np.int64), names, where)
    wrong = [label for label in labels if not isinstance(label, str)]
    if wrong:
        kind = type(wrong[0]).__name__
        raise DataError(f"{where}: expected all class names or all integers, found {wrong[0]!r} ({kind}).")
    texts = [str(label) for label in labels]
    if names is not None and all(text.strip().isdecimal() for text in texts):
        known = {name_key(name) for name in names}
        if not any(name_key(text) in known for text in set(texts)):
            return _from_integers(np.array([int(text) for text in texts], dtype=np.int64), names, where)
    if names is None:
        names = check_class_names(sorted(set(texts), key=sort_key), fewest=2)
    return _from_names(texts, names, where), names


def index_splits(
    splits: Mapping[str, Sequence[object]], label_names: Sequence[str] | None, *, where: str
) -> tuple[dict[str, Labels], tuple[str, ...]]:
    """`index_labels` for several splits; without label_names, the `leading` split defines the classes."""
    lead = leading(splits)
    found, names = index_labels(splits[lead], label_names, where=f"{where}, {lead}")
    indices = {lead: found}
    for kind, labels in splits.items():
        if kind != lead:
            # without label_names, integers were named by their digits
            known = labels if label_names is not None else [_digits(label) for label in labels]
            if label_names is None:
                refuse_untrained([label for label in known if isinstance(label, str)], names, f"{where}, {kind}", lead)
            indices[kind], _ = index_labels(known, names, where=f"{where}, {kind}")
    return indices, names


def refuse_untrained(given: Sequence[str], names: Sequence[str], where: str, lead: str) -> None:
    """Raise DataError for a class of another split that the leading one does not have."""
    known = set(map(name_key, names))
    strange = sorted({name for name in given if name_key(name) not in known}, key=sort_key)
    if strange and not all(name.strip().isdecimal() for name in given):
        what = "training images" if lead == "train" else f"{lead} images"
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise DataError(
            f"{where}: the class {strange[0]!r}{more} has no {what}; add some, or leave it out. Images of other "
            f"classes cannot be measured on."
        )


def leading(splits: Mapping[str, object]) -> str:
    """The split that defines the classes: train, else val, else test."""
    return next(kind for kind in ("train", "val", "test") if kind in splits)


def _digits(label: object) -> object:
    return str(label) if isinstance(label, int | np.integer) else label


def _from_integers(labels: Labels, names: tuple[str, ...] | None, where: str) -> tuple[Labels, tuple[str, ...]]:
    if names is None:
        values, indices = np.unique(labels, return_inverse=True)
        return indices.astype(np.int64), check_class_names([str(value) for value in values], fewest=2)
    outside = labels[(labels < 0) | (labels >= len(names))]
    if outside.size:
        raise DataError(
            f"{where}: expected integers 0 to {len(names) - 1} for the {len(names)} class names, "
            f"found {int(outside[0])}; give a name for every label."
        )
    return labels, names


def _from_names(texts: Sequence[str], names: tuple[str, ...], where: str) -> Labels:
    index = {name_key(name): i for i, name in enumerate(names)}
    distinct = {text: index.get(name_key(text)) for text in sorted(set(texts))}
    unknown = next((text for text, place in distinct.items() if place is None), None)
    if unknown is not None:
        few = "" if len(names) <= 20 else f"They begin with {', '.join(names[:5])}."
        near = suggest(unknown, names, otherwise=few)
        raise DataError(f"{where}: {unknown!r} is not among the {len(names)} classes.{near}")
    return np.array([distinct[text] for text in texts], dtype=np.int64)


def integer_labels(labels: Any, class_names: Sequence[str] | None) -> Labels | None:
    """Integer labels in the order of the classes, (C,), as an indicator matrix has; None if the labels are names."""
    if isinstance(labels, np.ndarray) and labels.ndim == 2:
        return np.arange(labels.shape[1])
    if labels is None or not all(map(is_whole, labels)):
        return None
    return np.unique(np.asarray(labels, dtype=np.int64)) if class_names is None else np.arange(len(class_names))


def is_blank(label: object) -> bool:
    """Whether a label is missing: None, NaN (which differs from itself), an empty text."""
    return label is None or label == "" or label != label


def is_list(label: object) -> TypeGuard[Sequence[object]]:
    """Whether it is a list of labels, as a cell of a table or a data set may be."""
    return isinstance(label, list | tuple | set | np.ndarray)


def check_single(labels: Sequence[object], where: str) -> None:
    """A label with "|" is one class, which a line in the log says. Raises DataError if it joins other classes.

    Raises DataError for lists of labels too.
    """
    if any(map(is_list, labels)):
        sizes = [len(label) if is_list(label) else int(not is_blank(label)) for label in labels]
        none, one = sizes.count(0), sizes.count(1)
        raise DataError(
            f"{where}: expected one label an image, found lists of them. Rows with several labels: "
            f"{len(sizes) - none - one:,}, with one: {one:,}, with none: {none:,}. Type --multi-label (in Python "
            "multi_label=True) to learn several."
        )
    texts = {label for label in labels if isinstance(label, str)}
    joined = sorted(text for text in texts if "|" in text)
    for text in joined:
        if any(part.strip() in texts for part in text.split("|")):
            rows = sum(label in joined for label in labels)
            raise DataError(
                f"{where}: the label {text!r} names several classes; an image has one class here. Rows "
                f"with several labels: {rows:,}, with one: {len(labels) - rows:,}. Type --multi-label to learn "
                "several; if '|' belongs to the name, write another sign in its place."
            )
    if joined:
        _log.warning(
            "%s: %r is read as the name of one class; an image has one class here, and several with --multi-label",
            where,
            joined[0],
        )


def is_whole(value: object) -> bool:
    """Whether it is an integer, of Python or numpy, and not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_)
