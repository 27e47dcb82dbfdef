"""One small reader a layout: a data set's folder -> rows (path below the image folder, label, class name) by split.

Layouts, label orders and changes to class names are those of KaiyangZhou/CoOp, datasets/*.py; where a split has to be
drawn, `splits` does. Files of a folder are taken in sorted order.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from daptune.data.benchmarks.registry import Benchmark
from daptune.data.benchmarks.splits import split_thirds, split_trainval
from daptune.data.formats import SUFFIXES
from daptune.data.name_lists import LARGEST
from daptune.data.table import SPLITS
from daptune.data.zhou import Parts, Row
from daptune.errors import DataError, foreign
from daptune.foreign import read_bytes, read_json
from daptune.isolated import try_first
from daptune.regular import open_regular

CLASSNAMES = "classnames.txt"
MATLAB_MEMORY, MATLAB_SECONDS = 500_000_000, 20
"""Memory in bytes and CPU time that a MATLAB file may take; those of the data sets have less than a megabyte."""


def class_folders(folder: Path, record: Benchmark, *, whole: bool = False) -> Parts:
    """A folder a class, labels in sorted order (Caltech101, Food101, DTD, EuroSAT); with `whole` all is train."""
    names = [name for name in folders_in(folder / record.images) if name not in record.ignored]
    groups = {
        (label, record.renamed.get(name, name)): [f"{name}/{file}" for file in images_in(folder / record.images / name)]
        for label, name in enumerate(names)
    }
    if whole:
        return {"train": [(file, label, name) for (label, name), files in groups.items() for file in files]}
    return split_thirds(groups)


def pets(folder: Path, record: Benchmark) -> Parts:
    """`annotations/trainval.txt` and `test.txt`: name, label from 1, species, number; the breed is in the name."""

    def rows(file: str) -> Iterator[Row]:
        for name, label, *_ in _table(folder / file, fewest=2):
            yield f"{name}.jpg", int(label) - 1, name.rpartition("_")[0].lower()

    return _with_val(rows(record.notes[0]), rows(record.notes[1]))


def cars(folder: Path, record: Benchmark) -> Parts:
    """Annotations in MATLAB files; the year goes from the end of the class name to its front."""
    train_file, meta_file, test_file = (folder / name for name in record.notes)
    train = cars_rows(train_file, meta_file, "cars_train")
    return _with_val(iter(train), iter(cars_rows(test_file, meta_file, "cars_test")))


def cars_rows(file: Path, meta_file: Path, part: str) -> list[Row]:
    """The rows of one file of annotations, whose images lie in the folder `part`."""
    names = [str(cell[0]) for cell in matlab(meta_file, "class_names")[0]]
    rows = []
    for entry in matlab(file, "annotations")[0]:
        label = int(entry["class"][0, 0]) - 1
        model, _, year = names[label].rpartition(" ")
        rows.append((f"{part}/{entry['fname'][0]}", label, f"{year} {model}"))
    return rows


def flowers(folder: Path, record: Benchmark) -> Parts:
    """`imagelabels.mat`: the label, from 1, of image_00001.jpg and so on; names in `cat_to_name.json`."""
    labels_file, names_file = (folder / name for name in record.notes)
    names = read_json(names_file)
    groups: dict[tuple[int, str], list[str]] = {}
    for place, label in enumerate(matlab(labels_file, "labels")[0].tolist(), 1):
        groups.setdefault((int(label) - 1, str(names[str(label)])), []).append(f"image_{place:05d}.jpg")
    return split_thirds(groups)


def aircraft(folder: Path, record: Benchmark) -> Parts:
    """`variants.txt`, and for each split lines of image and variant: the maker's own train, val and test."""
    variants_file, *split_files = (folder / name for name in record.notes)
    labels = {name: label for label, name in enumerate(_lines(variants_file))}
    parts: Parts = {}
    for part, file in zip(SPLITS, split_files, strict=True):
        pairs = (line.partition(" ") for line in _lines(file))
        parts[part] = [(f"{image}.jpg", labels[name], name) for image, _, name in pairs]
    return parts


def sun(folder: Path, record: Benchmark) -> Parts:
    """`ClassName.txt` and partition 1. `/a/athletic_field/outdoor` is called "outdoor athletic_field"."""
    classes_file, *split_files = (folder / name for name in record.notes)
    labels = {line[1:]: label for label, line in enumerate(_lines(classes_file))}

    def rows(file: Path) -> Iterator[Row]:
        for line in _lines(file):
            place = line[1:].rpartition("/")[0]
            yield line[1:], labels[place], " ".join(reversed(place.split("/")[1:]))

    return _with_val(rows(split_files[0]), rows(split_files[1]))


def ucf(folder: Path, record: Benchmark) -> Parts:
    """List 1 of the videos' own splits, for their middle frames: `ApplyEyeMakeup/v.avi` -> `Apply_Eye_Makeup/v.jpg`."""
    classes_file, *split_files = (folder / name for name in record.notes)
    labels = {name: int(number) - 1 for number, name in _table(classes_file, fewest=2)}

    def rows(file: Path) -> Iterator[Row]:
        for video, *_ in _table(file, fewest=1):
            action, _, name = video.partition("/")
            words = "_".join(re.findall("[A-Z][^A-Z]*", action))
            yield f"{words}/{name.replace('.avi', '.jpg')}", labels[action], words

    return _with_val(rows(split_files[0]), rows(split_files[1]))


def imagenet(folder: Path, record: Benchmark) -> Parts:
    """`images/train` and `images/val`, a folder a wnid; val is the test set, as everywhere in this field."""
    return {"train": wnid_rows(folder, record, "train/"), "test": wnid_rows(folder, record, "val/")}


def wnids(folder: Path, record: Benchmark) -> Parts:
    """A folder a wnid, test images alone; labels count the folders that are there (200 in ImageNet-A and -R)."""
    return {"test": wnid_rows(folder, record)}


def numbered(folder: Path, record: Benchmark) -> Parts:
    """Folders 0 to 999, test images alone: the number is the line in `classnames.txt` (ImageNetV2)."""
    names = list(class_names(folder).values())
    place = folder / record.images
    return {
        "test": [
            (f"{number}/{file}", int(number), names[int(number)])
            for number in sorted(folders_in(place), key=int)
            for file in images_in(place / number)
        ]
    }


READERS: dict[str, Callable[[Path, Benchmark], Parts]] = {
    reader.__name__: reader
    for reader in (class_folders, pets, cars, flowers, aircraft, sun, ucf, imagenet, wnids, numbered)
}


def wnid_rows(folder: Path, record: Benchmark, part: str = "") -> list[Row]:
    """Rows of the folders in `part` of the images, each named by its wnid, labelled in sorted order."""
    names, place = class_names(folder), folder / record.images
    return [
        (f"{part}{wnid}/{file}", label, names[wnid])
        for label, wnid in enumerate(folders_in(place / part))
        for file in images_in(place / part / wnid)
    ]


def class_names(folder: Path) -> dict[str, str]:
    """wnid -> name: of `classnames.txt` in the folder, of that in imagenet/ beside it, or of the list kept here."""
    candidates = (folder / CLASSNAMES, folder.parent / "imagenet" / CLASSNAMES)
    own = Path(__file__).with_name("imagenet_classnames.txt")
    found = next((path for path in candidates if path.is_file()), own)
    return dict(_table(found, fewest=2, most=2))


def folders_in(place: Path) -> list[str]:
    """Names of the visible sub-folders, sorted."""
    with os.scandir(place) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def images_in(place: Path) -> list[str]:
    """Names of the visible image files, sorted; told by suffix, for ImageNet has more than a million."""
    with os.scandir(place) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    return sorted(name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES)


def _with_val(trainval: Iterator[Row], test: Iterator[Row]) -> Parts:
    train, val = split_trainval(trainval)
    return {"train": train, "val": val, "test": list(test)}


def _lines(path: Path) -> list[str]:
    unread = foreign(lambda why: DataError(f"{path} cannot be read as a list ({why})."), passing=(OSError,))
    with unread:
        return [line for line in map(str.strip, read_bytes(path, LARGEST).decode("utf-8").splitlines()) if line]


def _table(path: Path, *, fewest: int, most: int = 0) -> Iterator[list[str]]:
    """The words of each line; with `most`, the last takes the rest of the line."""
    for number, line in enumerate(_lines(path), 1):
        words = line.split(" ", most - 1) if most else line.split(" ")
        if len(words) < fewest:
            raise DataError(f"{path}, line {number}: expected {fewest} words or more, found {line!r}.")
        yield words


def matlab(path: Path, name: str) -> Any:
    """A variable of a MATLAB file. Raises DataError for what is none; OSError where there is no file."""
    from scipy.io import loadmat  # scikit-learn brings it; only two data sets need it

    with open_regular(path) as file:
        no_file = f"{path} is not a MATLAB file with {name!r}"
        with foreign(lambda why: DataError(f"{no_file} ({why}); fetch it again.")):
            try_first("scipy.io:loadmat", str(path), memory=MATLAB_MEMORY, seconds=MATLAB_SECONDS)
            return loadmat(file)[name]
