"""Find all unreadable images of a table before training."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daptune.data.cache import Decoder
from daptune.data.parallel import ordered_map
from daptune.data.quiet import telling
from daptune.data.table import ImageSource, ImageTable, Splits, describe
from daptune.errors import DataError

SHOWN = 20
"""So many unreadable images are listed one by one."""
FEW = 0.01
"""Up to such a part of its images may be missing before a source is read without them."""

_log = logging.getLogger("daptune")


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be decoded: its row, source, reason in one line, and name if it has one."""

    index: int
    source: ImageSource
    reason: str
    name: str = ""


@dataclass(frozen=True)
class DecodeReport:
    """The unreadable images of a table, in its order; true if there are any."""

    unreadable: tuple[Unreadable, ...]
    checked: int

    def __bool__(self) -> bool:
        return bool(self.unreadable)

    def __str__(self) -> str:
        """A headline, then one line per image for the first SHOWN."""
        lines = [f"{len(self.unreadable)} of {self.checked} images cannot be read"]
        lines += [bad.reason for bad in self.unreadable[:SHOWN]]
        more = len(self.unreadable) - SHOWN
        return "\n  ".join(lines + ([f"and {more} more"] if more > 0 else []))


def check_readable(
    table: ImageTable,
    decoder: Decoder | None = None,
    *,
    workers: int | None = None,
    after_image: Callable[[], object] = int,
) -> DecodeReport:
    """Decode every image of the table, in parallel, and report those that fail.

    `decoder` keeps the others, and a digest of each (`daptune.data.identical`); `after_image` is called after each.
    """
    decode = Decoder(0) if decoder is None else decoder

    def attempt(index: int) -> Unreadable | None:
        try:
            decode.examine(table.images[index])
        except DataError as error:
            return Unreadable(index, table.images[index], str(error))
        return None

    bad = []
    with telling():
        for found in ordered_map(attempt, range(len(table)), workers=workers):
            after_image()
            bad += [] if found is None else [found]
    return DecodeReport(tuple(bad), len(table))


def drop_unreadable(
    table: ImageTable, report: DecodeReport, *, every_class: bool = True, logged: bool = True
) -> ImageTable:
    """The table without the report's images, which are logged together.

    every_class: raise DataError if a class is left without images; a test set may lose one. An empty table is always
    an error.
    """
    if not report:
        return table
    kept = np.setdiff1d(np.arange(len(table)), [bad.index for bad in report.unreadable])
    rest = table.subset(kept)
    emptied = [
        name
        for name, before, after in zip(table.class_names, table.counts(), rest.counts(), strict=True)
        if before and not after
    ]
    if emptied and (every_class or not len(rest)):
        lost = table.class_names.index(emptied[0])
        reason = next(bad.reason for bad in report.unreadable if table.shows(lost)[bad.index])
        raise DataError(f"no image of {first_few(emptied)} can be read ({reason}); replace the files.")
    if logged:
        _log.warning("%s; continuing without them", report)
    return rest


def without_missing(splits: Splits, where: str, *, every_class: bool = False) -> Splits:
    """The splits without files that are not there, where these are many; no file is opened.

    Left out are classes and splits that have no image at all, and single images where they are more than FEW of all:
    below that, few-shot draws stay those of the whole list as long as they meet none. One line in the log tells how
    many images are not there, the first, and what has none. Raises DataError, with the same cause, where a class is
    left without any image to learn from. every_class: the class list is given, and none is left out.
    """
    tables = splits.present()
    rows = {split: missing_files(table) for split, table in tables.items()}
    total, lost = sum(map(len, tables.values())), sum(map(len, rows.values()))
    if not lost:
        return splits
    first = next(tables[split].images[gone[0]] for split, gone in rows.items() if gone)
    cause = f"{where}: {lost:,} of {total:,} images are not there, the first {describe(first)}"
    kept = {split: table.subset(np.setdiff1d(np.arange(len(table)), rows[split])) for split, table in tables.items()}
    gone = [split for split, table in kept.items() if not len(table)]
    if len(gone) == len(kept):
        raise DataError(f"{cause}; put the images where their paths say.")
    cause += "".join(f"; none of the {len(tables[split]):,} {split} images is there" for split in gone)
    names = splits.whole().class_names
    held = sum((table.counts() for table in kept.values()), np.zeros(len(names), np.int64)) > 0
    if not every_class and 2 <= held.sum() < len(held):
        absent = [name for name, some in zip(names, held, strict=True) if not some]
        cause += f"; {len(absent)} of {len(names)} classes have none: {first_few(absent, noun='more')}"
        kept = {split: table.of_classes(np.flatnonzero(held)) for split, table in kept.items()}
    elif not gone and lost <= FEW * total:
        return splits
    if "train" in kept and "train" not in gone:
        emptied = kept["train"].counts() == 0
        if not every_class and emptied.any():
            lacking = [name for name, empty in zip(kept["train"].class_names, emptied, strict=True) if empty]
            raise DataError(f"{cause}; {first_few(lacking)} have no training image: add some, or leave them out.")
    _log.warning("%s; going on without them", cause)
    return Splits.of({split: table for split, table in kept.items() if len(table)}, splits.ignored)


def missing_files(table: ImageTable) -> list[int]:
    """Rows whose images are paths of no file; each folder is listed once."""
    listings: dict[Path, frozenset[str]] = {}
    absent = []
    for row, image in enumerate(table.images):
        if not isinstance(image, Path):
            continue
        if (folder := image.parent) not in listings:
            listings[folder] = frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()
        if image.name not in listings[folder] and not image.is_file():
            absent.append(row)
    return absent


def first_few(names: Sequence[str], most: int = 3, noun: str = "more classes") -> str:
    """The names in a row; of many the first and how many more there are."""
    more = len(names) - most
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:most])} and {more} {noun}"
