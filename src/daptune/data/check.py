"""Find all unreadable images of a table before training."""

import logging
from dataclasses import dataclass

import numpy as np

from daptune.data.cache import Decoder
from daptune.data.parallel import ordered_map
from daptune.data.table import ImageSource, ImageTable
from daptune.errors import DataError

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
        """A headline, then one line per image."""
        lines = [f"{len(self.unreadable)} of {self.checked} images cannot be read"]
        return "\n  ".join(lines + [bad.reason for bad in self.unreadable])


def check_readable(table: ImageTable, decoder: Decoder | None = None, *, workers: int | None = None) -> DecodeReport:
    """Decode every image of the table, in parallel, and report those that fail; `decoder` keeps the others."""
    decode = Decoder(0) if decoder is None else decoder

    def attempt(index: int) -> Unreadable | None:
        try:
            decode(table.images[index])
        except DataError as error:
            return Unreadable(index, table.images[index], str(error))
        return None

    found = ordered_map(attempt, range(len(table)), workers=workers)
    return DecodeReport(tuple(bad for bad in found if bad is not None), len(table))


def drop_unreadable(table: ImageTable, report: DecodeReport, *, every_class: bool = True) -> ImageTable:
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
        reason = next(bad.reason for bad in report.unreadable if table.labels[bad.index] == lost)
        raise DataError(f"no image of {', '.join(emptied)} can be read ({reason}); replace the files.")
    _log.warning("%s; continuing without them", report)
    return rest
