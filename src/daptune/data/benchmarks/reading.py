"""A benchmark data set -> `Splits`, and its classes in two halves."""

import logging
import math
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from daptune.data.benchmarks.layouts import READERS
from daptune.data.benchmarks.registry import Benchmark, find
from daptune.data.benchmarks.splits import SEED
from daptune.data.table import SPLITS, ImageTable, Splits
from daptune.data.zhou import Parts, Row, class_names_of, load_rows, splits_of
from daptune.errors import DataError, foreign

ROOT_VARIABLE = "DAPTUNE_DATA"
_log = logging.getLogger("daptune")


def data_root(root: str | Path | None = None) -> Path:
    """The folder that holds the data sets: `root`, else $DAPTUNE_DATA, else ./data."""
    return Path(root or os.environ.get(ROOT_VARIABLE) or "data").expanduser()


def read_benchmark(name: str, root: str | Path | None = None) -> Splits:
    """Read a data set by its name from `root/<its folder>`; nothing is decoded.

    Class names are those of the official code; one that stands twice (ImageNet's "missile") gets an underscore, which
    prompts do not show. The targets have test images alone, and ImageNet no val: official code tests on what it
    validates on. Raises DataError in one line for an unknown name, and where a part is missing; an image count other
    than the published one is a warning, and so is a val or test split without a single image, which is left out.
    """
    record = find(name)
    folder = data_root(root) / record.folder
    parts, drawn = read_rows(record, folder)
    images = (folder / record.images).absolute()
    parts = _without_gone(record, parts, images)
    absent = missing_images(images, [row for rows in parts.values() for row in rows])
    if absent:
        total = sum(map(len, parts.values()))
        raise _half(record, folder, f"{len(absent)} of its {total} images are missing, the first {absent[0]}")
    splits = tables_of(parts, images)
    classes = len((splits.train if len(splits.train) else splits.whole()).class_names)
    if classes != record.classes:
        raise _half(record, folder, f"expected {record.classes} classes, found {classes}")
    if drawn:
        _log.warning(
            "%s: %s is not there; the split was drawn with seed %d. Published figures need the authors' file.",
            record.name, record.split_file, SEED,
        )  # fmt: skip
    counts = tuple(len(parts.get(part, ())) for part in SPLITS)
    known = tuple(count if part in parts else 0 for part, count in zip(SPLITS, record.counts, strict=True))
    if counts != known:
        _log.warning("%s: %s images in train, val and test; published are %s.", record.name, counts, record.counts)
    return splits


def _without_gone(record: Benchmark, parts: Parts, images: Path) -> Parts:
    """Without the test or val rows where not one of their images is there, which one line in the log tells."""
    lost = [part for part, rows in parts.items() if len(missing_images(images, rows)) == len(rows) > 0]
    gone = [part for part in lost if parts.get("train") and "train" not in lost]
    for part in gone:
        _log.warning(
            "%s: none of its %d %s images is there (the first is %s); going on without a %s split.",
            record.name, len(parts[part]), part, parts[part][0][0], part,
        )  # fmt: skip
    return {part: rows for part, rows in parts.items() if part not in gone}


def read_rows(record: Benchmark, folder: Path) -> tuple[Parts, bool]:
    """(rows by split, whether the split was drawn here): of the split file, or as the layout has them."""
    if not folder.is_dir():
        raise DataError(
            f"{record.name}: there is no folder {folder}; type `daptune data prepare {record.name}`, or name the "
            f"folder of the data sets with --root or {ROOT_VARIABLE}."
        )
    if record.split_file and (folder / record.split_file).is_file():
        return load_rows(folder / record.split_file), False
    with foreign(lambda why: _half(record, folder, f"its files are not as published ({why})")):
        try:
            return READERS[record.layout](folder, record), bool(record.split_file)
        except OSError as error:
            lacking = Path(error.filename or folder)
            inside = lacking.relative_to(folder) if lacking.is_relative_to(folder) else lacking
            either = f" or {record.split_file}" if record.split_file and inside.as_posix() in record.notes else ""
            raise _half(record, folder, f"expected {inside}{either} ({error.strerror})") from error


def missing_images(root: Path, rows: Iterable[Row]) -> list[str]:
    """Paths of the rows that are no file below root; each folder is listed once."""
    listings: dict[str, frozenset[str]] = {}
    absent = []
    for file, _, _ in rows:
        place, _, name = file.rpartition("/")
        if place not in listings:
            folder = root / place
            listings[place] = frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()
        if name not in listings[place]:
            absent.append(file)
    return absent


def tables_of(parts: Parts, root: Path) -> Splits:
    """Rows as tables of images below root; classes in the order of their labels, which are renumbered without gaps."""
    names = class_names_of(parts)
    if not names:
        raise DataError(f"{root}: expected images, found none.")
    numbers = {label: number for number, label in enumerate(names)}
    return splits_of(parts, numbers, distinct_names(list(names.values())), root)


def base_and_new(splits: Splits) -> tuple[Splits, Splits]:
    """The first half of the classes, rounded up, and the others, each with labels from 0.

    In label order, over the classes of train (of the test images where there are none): KaiyangZhou/CoOp
    datasets/oxford_pets.py, `subsample_classes`. It is applied there to few-shot draws, so that base images are those
    of the run on all classes: draw first, then give `Splits(drawn.train, drawn.val, splits.test)`.
    """
    labels = np.unique((splits.train if len(splits.train) else splits.whole()).labels)
    half = math.ceil(len(labels) / 2)
    if half == len(labels):
        raise DataError(f"expected two classes or more to divide into base and new, found {len(labels)}.")
    base, new = (partial(ImageTable.of_classes, chosen=own) for own in np.split(labels, [half]))
    return splits.each(base), splits.each(new)


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names that stand twice made different by underscores, which become blanks in a prompt and then nothing."""
    marked: dict[str, None] = {}  # a set that keeps its order
    for name in names:
        while name in marked:
            name += "_"
        marked[name] = None
    return tuple(marked)


def _half(record: Benchmark, folder: Path, what: str) -> DataError:
    return DataError(f"{record.name} in {folder}: {what}; type `daptune data check {record.name}` for the whole list.")
