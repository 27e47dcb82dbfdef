"""Weights of classes in the loss, for classes with very different numbers of images or costs of mistakes."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from daptune.data.table import ImageTable
from daptune.data.tabular import csv_rows
from daptune.errors import DataError, foreign, suggest
from daptune.files import told
from daptune.foreign import read_json

AUTO = "auto"
"""Weights by inverse frequency."""


def check_class_weight(given: object, *, balanced: bool) -> None:
    """Raises DataError for another type than "auto", a mapping or None, and "auto" with balanced sampling."""
    if given is not None and not isinstance(given, Mapping) and given != AUTO:
        raise DataError(f"class_weight must be 'auto', weights by class name, or None; found {given!r}")
    if given == AUTO and balanced:
        raise DataError("class_weight='auto' and sampling='balanced' both even out the classes; leave one of them out")


def class_weights(given: str | Mapping[Any, float], table: ImageTable) -> npt.NDArray[np.float32]:
    """One weight per class, (C,), with mean 1 over the images of the table: they are relative.

    "auto" is n / (C n_c) for n images, C classes with images and n_c images of the class, as scikit-learn's
    "balanced". A mapping has a weight for every class name. Raises DataError for a class that is missing or unknown,
    and a weight that is not a number above 0.
    """
    counts = table.counts()
    if isinstance(given, str):
        weights = 1 / np.maximum(counts, 1)
    else:
        weights = _named({str(name): value for name, value in given.items()}, table.class_names)
    return (weights * (len(table) / (weights * counts).sum())).astype(np.float32)


def read_class_weights(path: Path) -> dict[str, float]:
    """Class name -> weight from a CSV file with the columns class,weight or a JSON object.

    Raises DataError for another content, a name given twice, or a weight that is not a number above 0.
    """
    if path.suffix.lower() == ".json":
        rows = _json_rows(path)
    else:
        header, *lines = csv_rows(path)
        if [name.strip().lower() for name in header] != ["class", "weight"]:
            raise DataError(f"{path.name}: expected the columns class,weight, found {','.join(header)}")
        rows = [(name.strip(), value.strip()) for name, value in lines]
    found: dict[str, float] = {}
    for name, value in rows:
        if name in found:
            raise DataError(f"{path.name} has two weights for {name!r}; keep one of them")
        found[name] = _weight(name, value)
    if not found:
        raise DataError(f"{path.name} has no weights; expected one for each class")
    return found


def _json_rows(path: Path) -> list[tuple[str, Any]]:
    opened = told(lambda why: DataError(f"{path} cannot be read ({why}); name a CSV or JSON file of weights"))
    with foreign(lambda why: DataError(f"{path.name} is not JSON ({why})")), opened:
        # pairs and not a dict, in which the last of two weights for a class would win
        content = read_json(path, pairs=list)
    if not isinstance(content, list) or not all(isinstance(row, tuple) for row in content):
        raise DataError(f'{path.name}: expected an object such as {{"cat": 1, "dog": 5}}')
    return content


def _named(given: Mapping[str, Any], names: tuple[str, ...]) -> npt.NDArray[np.float64]:
    if strange := [name for name in given if name not in names]:
        raise DataError(f"there is a weight for {strange[0]!r}, which is not a class.{suggest(strange[0], names)}")
    if missing := [name for name in names if name not in given]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"there is no weight for the class {missing[0]!r}{more}; give one for each of {len(names)}")
    return np.array([_weight(name, given[name]) for name in names])


def _weight(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not (math.isfinite(number) and number > 0):
        raise DataError(f"the weight of {name!r} must be a number above 0; found {value!r}")
    return number
