"""Boxes that a detector found, and the parts of pictures in them."""

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from math import ceil, floor, isfinite
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from daptune.data.backslashes import with_slashes
from daptune.data.folders import image_files
from daptune.data.images import decode
from daptune.data.table import MadeImage
from daptune.data.tabular import IMAGE_COLUMNS, MOST_ROWS, csv_rows, find_column
from daptune.errors import DataError

SIDES = ("x0", "y0", "x1", "y1")
"""Columns of a box: left, top, right and bottom edge in pixels from the top left corner of the upright picture."""
_PICTURES = 4  # decoded pictures that are kept for the next box; boxes of a picture follow each other
_log = logging.getLogger("daptune")


class Box(NamedTuple):
    x0: float
    y0: float
    x1: float
    y1: float

    def __str__(self) -> str:
        return ", ".join(f"{edge:g}" for edge in self)


class Boxes:
    """The boxes of a CSV file with the columns image, x0, y0, x1, y1; images are relative to a folder.

    Raises DataError for a file that cannot be read, lacks a column, or has a value that is no number.
    """

    def __init__(self, table: Path, folder: Path) -> None:
        self.table, self.folder = table, folder
        self.boxes = _read(table)
        self.kinds: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._pictures = lru_cache(_PICTURES)(_Picture)

    def __iter__(self) -> Iterator[tuple[str, "Crop"]]:
        """Images in the order of the file, with the boxes of each in a row: name as in the file, and the crop."""
        for name, boxes in self.boxes.items():
            path = with_slashes(self.folder, name)
            yield from ((name, Crop(name, path, box, self)) for box in boxes)

    def picture(self, path: Path) -> Image.Image:
        return self._pictures(path).image()

    def count(self, kind: str) -> None:
        with self._lock:
            self.kinds[kind] += 1

    def tell(self) -> None:
        """A line in the log for each kind of box that was not as expected, and for images without boxes."""
        boxed = {os.path.abspath(with_slashes(self.folder, name)) for name in self.boxes}
        bare = sum(os.path.abspath(path) not in boxed for path in image_files(self.folder, unread=True))
        kinds = self.kinds | Counter({f"images of {self.folder} without a box, which have no row": bare})
        for kind, number in sorted(kinds.items()):
            if number:
                _log.warning("%s: %s: %d", self.table.name, kind, number)


class Crop(MadeImage):
    """The part of a picture in a box, of whole pixels; what lies outside the picture is cut off."""

    def __init__(self, name: str, path: Path, box: Box, boxes: Boxes) -> None:
        self.name, self.path, self.box, self._boxes = name, path, box, boxes
        self.size: tuple[int, int] | None = None  # of the picture, as soon as it is read

    def load(self) -> Image.Image:
        x0, y0, x1, y1 = self.box
        if x1 <= x0 or y1 <= y0:
            self._boxes.count("boxes without area")
            raise DataError(f"the box {self.box} has no area; expected x0 < x1 and y0 < y1.")
        try:
            picture = self._boxes.picture(self.path)
        except DataError as error:
            raise DataError(str(error).removeprefix(f"{self.path}: ")) from None
        self.size = width, height = picture.size
        if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
            self._boxes.count("boxes outside their picture")
            raise DataError(f"the box {self.box} lies outside its picture of {width} x {height} pixels.")
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            self._boxes.count("boxes cut at the edge of their picture")
        part = picture.crop((max(0, floor(x0)), max(0, floor(y0)), min(width, ceil(x1)), min(height, ceil(y1))))
        part.info = {}  # its EXIF tag has been obeyed
        return part

    def __str__(self) -> str:
        return self.name


class _Picture:
    """A file that is decoded once, by the first who asks."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._image: Image.Image | None = None

    def image(self) -> Image.Image:
        with self._lock:
            if self._image is None:
                self._image = decode(self._path)
            return self._image


def _read(table: Path) -> dict[str, list[Box]]:
    rows = csv_rows(table, "image, x0, y0, x1 and y1")
    header = next(rows, [])
    image, *sides = (find_column(header, names) for names in (IMAGE_COLUMNS, *((side,) for side in SIDES)))
    if image is None or None in sides:
        raise DataError(
            f"{table.name}: expected the columns image, x0, y0, x1 and y1 (pixels), found {', '.join(header)}; "
            "rename them in the header."
        )
    name, places = header.index(image), [header.index(side) for side in sides if side is not None]
    found: dict[str, list[Box]] = {}
    for number, row in enumerate(rows, start=1):
        if number > MOST_ROWS:
            raise DataError(f"{table.name} has more than {MOST_ROWS:,} boxes; divide it.")
        found.setdefault(row[name].strip(), []).append(Box(*(_number(row[place], table, number) for place in places)))
    if not found:
        raise DataError(f"{table.name} has no boxes; expected rows below the header.")
    return found


def _number(text: str, table: Path, row: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise DataError(f"{table.name}, row {row}: expected a number of pixels, found {text.strip()!r}.")
    return int(value) if value.is_integer() else value
