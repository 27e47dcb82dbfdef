"""CoOp's split files, `split_zhou_<data set>.json`: {"train", "val", "test": [[path, label, name], ...]}.

The order of the lists is kept as it is: few-shot sampling depends on it (KaiyangZhou/CoOp,
datasets/oxford_pets.py, `read_split`). Labels are renumbered in ascending order, which changes them only
where numbers are missing.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from daptune.data.backslashes import CAUSE, has_backslashes
from daptune.data.labels import index_labels
from daptune.data.table import SPLITS, ImageTable, Splits
from daptune.errors import DataError, foreign
from daptune.foreign import LARGEST_WHOLE, read_json
from daptune.names import check_class_names

_log = logging.getLogger("daptune")

# where CoOp's DATASETS.md puts the images, below the folder of the split file
IMAGE_FOLDERS = (".", "images", "101_ObjectCategories", "jpg", "SUN397", "2750", "UCF-101-midframes")
_PROBES = 20  # the first and every so many of the others tell the image folder; some may be missing

Row = tuple[str, int, str]
"""Path below the image folder, label, class name."""
Parts = dict[str, list[Row]]
"""The rows of each split, in their order."""


def find_split_file(folder: Path) -> Path | None:
    """The one `split_zhou_*.json` of a folder, or None; DataError where there are several."""
    found = sorted(folder.glob("split_zhou_*.json"))
    if len(found) > 1:
        raise DataError(f"{folder} holds {found[0].name} and {found[1].name}; give the one to read.")
    return found[0] if found else None


def read_zhou(
    path: Path,
    image_root: str | Path | None = None,
    label_names: Sequence[str] | None = None,
    *,
    multi_label: bool = False,
) -> Splits:
    """Read a split file; image_root defaults to the usual folder beside it that holds the images.

    multi_label: a class name may be blank or `a|b`; `in_several` then checks it.
    """
    parts = {part: rows for part, rows in load_rows(path).items() if rows}
    if not parts:
        raise DataError(f"{path.name}: its lists are empty; expected [relative path, label, class name] rows.")
    names = class_names_of(parts, f"{path.name}: ")
    if not multi_label:
        check_class_names(list(names.values()), fewest=1)  # report faults of the lists before those of the images
    given = Path(os.path.expanduser(image_root)) if image_root is not None else None
    root = _image_root(path, parts, given)
    if root is None and has_backslashes(row[0] for rows in parts.values() for row in rows):
        slashed = {
            part: [(file.replace("\\", "/"), label, name) for file, label, name in rows] for part, rows in parts.items()
        }
        if (root := _image_root(path, slashed, given)) is not None:
            parts = slashed
            _log.warning("%s: paths with backslashes are read with slashes", path.name)
    if root is None:
        raise _without_images(path, parts, given)
    if multi_label:
        return splits_of(parts, {label: place for place, label in enumerate(names)}, tuple(names.values()), root)
    return read_parts(parts, root, label_names, str(path))


def read_parts(parts: Parts, root: Path, label_names: Sequence[str] | None, where: str) -> Splits:
    """Rows as tables, whether their images are there or not; `where` begins the messages of DataError."""
    names = class_names_of(parts, f"{where}: ")
    classes = check_class_names(list(names.values()), fewest=2 if label_names is None else 1)
    numbers = np.arange(len(names))
    if label_names is not None:
        numbers, classes = index_labels(classes, label_names, where=where)
    return splits_of(parts, dict(zip(names, numbers.tolist(), strict=True)), classes, root)


def load_rows(path: Path) -> Parts:
    """The lists of a split file as they stand; DataError for anything else."""
    expected = 'expected {"train": [[path, label, class name], ...], "val": ..., "test": ...}'
    with foreign(lambda why: DataError(f"{path}: {expected}, but it cannot be read ({why}).")):
        content = read_json(path)
    if not isinstance(content, dict) or "train" not in content:
        raise DataError(f"{path}: {expected}, found no train list.")
    return {part: _rows(content.get(part) or [], f"{path}: {expected}; a row of {part} differs") for part in SPLITS}


def _rows(listed: Any, where: str) -> list[Row]:
    with foreign(lambda why: DataError(f"{where} ({why}).")):
        rows = [(str(file), int(label), str(name)) for file, label, name in listed]
        if (wrong := next((row for row in rows if abs(row[1]) > LARGEST_WHOLE), None)) is not None:
            raise ValueError(f"the label of {wrong[0]!r} has more than 64 bits")
        return rows


def class_names_of(parts: Parts, where: str = "") -> dict[int, str]:
    """Label -> class name, in the order of the labels; DataError, begun by `where`, for a label of two names."""
    names: dict[int, str] = {}
    for rows in parts.values():
        for _, label, name in rows:
            if names.setdefault(label, name) != name:
                raise DataError(f"{where}label {label} is named both {names[label]!r} and {name!r}; one is wrong.")
    return dict(sorted(names.items()))


def splits_of(parts: Parts, numbers: Mapping[int, int], class_names: tuple[str, ...], root: Path) -> Splits:
    """Rows as tables of images below root. numbers: label of the rows -> place in class_names."""
    return Splits.of(
        {
            part: ImageTable(
                tuple(root / file for file, _, _ in rows),
                np.array([numbers[label] for _, label, _ in rows], dtype=np.int64),
                class_names,
                root,
            )
            for part, rows in parts.items()
            if rows
        }
    )


def _image_root(path: Path, parts: Parts, given: Path | None) -> Path | None:
    """The folder that the paths of the rows start from; None if there is none."""
    files = [row[0] for rows in parts.values() for row in rows]
    folder = path.parent
    inside = sorted(child for child in folder.iterdir() if child.is_dir()) if given is None else []
    candidates = [given] if given is not None else [folder / name for name in IMAGE_FOLDERS] + inside
    probes = [*files[:_PROBES], *files[:: max(len(files) // 1000, 1)]]
    for candidate in candidates:
        if any((candidate / file).is_file() for file in probes):
            return candidate
    return None


def _without_images(path: Path, parts: Parts, given: Path | None) -> DataError:
    files = [row[0] for rows in parts.values() for row in rows]
    where = given if given is not None else f"{path.parent} and its sub-folders"
    cause = CAUSE if has_backslashes(files) else "put the file into the folder that its paths start from"
    return DataError(f"{path.name}: its first image {files[0]} is not below {where}; {cause}.")
