"""Data sets as their makers pack them, where the folder is given by its path: known by their files, read as they split.

A data set asked for by name (`data:dtd`) has the split of the official code. A folder has that only where the split
file lies in it; else the makers' own lists count: `labels/train1.txt` of DTD, `meta/train.txt` of Food-101,
`setid.mat` of Flowers, the annotations of Cars. Caltech101 and EuroSAT have none: all their images are for training,
and `fit` holds a part of them out.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from daptune.data.benchmarks.layouts import cars_rows, class_folders, matlab
from daptune.data.benchmarks.reading import read_rows, tables_of
from daptune.data.benchmarks.registry import BENCHMARKS, Benchmark
from daptune.data.table import Splits
from daptune.data.zhou import Parts, Row, read_parts
from daptune.errors import DataError, foreign
from daptune.foreign import read_json

_log = logging.getLogger("daptune")
_FLOWER_SETS = {"train": "trnid", "val": "valid", "test": "tstid"}


def find_archive(folder: Path) -> tuple[Benchmark, Path] | None:
    """The data set whose makers' files lie in a folder, or in the one folder in it, with the place; else None."""
    places = [folder]
    try:
        children = [child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")]
    except OSError:
        return None
    if len(children) == 1:
        places.append(children[0])
    for place in places:
        for record in BENCHMARKS.values():
            if record.signs and all((place / sign).exists() for sign in record.signs):
                return record, place
    return None


def read_archive(record: Benchmark, folder: Path, label_names: Sequence[str] | None = None) -> Splits:
    """Read what `find_archive` found; images that the lists name and that are not there are told in one line."""
    reader = _OWN.get(record.name)
    what = f"{folder} looks like {record.title}, but its files are not as published"
    with foreign(lambda why: DataError(f"{what} ({why}).")):
        parts = reader(folder, record) if reader else read_rows(record, folder)[0]
    parts = {part: rows for part, rows in parts.items() if rows}
    found = ", ".join(f"{len(rows):,} {part}" for part, rows in parts.items())
    _log.warning("%s is read as %s in its makers' layout: %s images", folder, record.title, found)
    if label_names is None:
        return tables_of(parts, folder / record.images)
    return read_parts(parts, folder / record.images, label_names, str(folder))


def _unsplit(folder: Path, record: Benchmark) -> Parts:
    parts = class_folders(folder, record, whole=True)
    if record.ignored and (gone := [name for name in record.ignored if (folder / record.images / name).is_dir()]):
        _log.warning("%s: %s are left out, as everywhere in this field", folder, " and ".join(gone))
    return parts


def _dtd(folder: Path, record: Benchmark) -> Parts:
    files = {part: folder / "labels" / f"{part}1.txt" for part in ("train", "val", "test")}
    return _listed(files, "")


def _food101(folder: Path, record: Benchmark) -> Parts:
    return _listed({part: folder / "meta" / f"{part}.txt" for part in ("train", "test")}, ".jpg")


def _listed(files: dict[str, Path], suffix: str) -> Parts:
    """Lists of `class/image`, one of each split; one that is not there is a split that is not there."""
    listed = {part: file.read_text("utf-8").split() for part, file in files.items() if file.is_file()}
    names = sorted({line.partition("/")[0] for lines in listed.values() for line in lines})
    labels = {name: label for label, name in enumerate(names)}

    def row(line: str) -> Row:
        name = line.partition("/")[0]
        return f"{line}{suffix}", labels[name], name

    return {part: [row(line) for line in lines] for part, lines in listed.items()}


def _flowers(folder: Path, record: Benchmark) -> Parts:
    if not (folder / "setid.mat").is_file():
        return read_rows(record, folder)[0]
    names_file = folder / "cat_to_name.json"
    names = read_json(names_file) if names_file.is_file() else {}
    if not names:
        _log.warning(
            "%s: without cat_to_name.json (`daptune data prepare oxford_flowers`) its classes are called by numbers, "
            "which CLIP cannot read", folder,
        )  # fmt: skip
    labels = matlab(folder / "imagelabels.mat", "labels")[0].tolist()

    def rows(numbers: Iterable[int]) -> list[Row]:
        found = ((number, int(labels[number - 1])) for number in numbers)
        return [(f"image_{n:05d}.jpg", label - 1, str(names.get(str(label), label))) for n, label in found]

    sets = {part: matlab(folder / "setid.mat", key)[0].tolist() for part, key in _FLOWER_SETS.items()}
    return {part: rows(map(int, numbers)) for part, numbers in sets.items()}


def _cars(folder: Path, record: Benchmark) -> Parts:
    """The makers' training images and, where their labels are there, test images."""
    train, meta, test = (folder / name for name in record.notes)
    parts = {"train": cars_rows(train, meta, "cars_train")}
    if test.is_file():
        parts["test"] = cars_rows(test, meta, "cars_test")
    return parts


_OWN: dict[str, Callable[[Path, Benchmark], Parts]] = {
    "caltech101": _unsplit, "eurosat": _unsplit, "dtd": _dtd, "food101": _food101, "oxford_flowers": _flowers,
    "stanford_cars": _cars,
}  # fmt: skip
