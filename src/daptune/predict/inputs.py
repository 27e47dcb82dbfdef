"""Inputs of prediction: files, folders, lists and tables as a lazy stream of named images; or as a list."""

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain, count, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from daptune.data.backslashes import with_slashes
from daptune.data.folders import image_files
from daptune.data.formats import is_film_file
from daptune.data.hub_data import dataset_images, is_dataset
from daptune.data.stream import Item
from daptune.data.table import ImageSource, ImageTable, image_cell
from daptune.data.tabular import IMAGE_COLUMNS, TABLE_SUFFIXES, csv_rows, find_column, open_parquet
from daptune.data.video import frames
from daptune.errors import DataError
from daptune.files import told
from daptune.regular import open_regular

LIST_SUFFIXES = (".txt", ".lst")
_ROWS = 64  # rows of a Parquet table read at a time; a row may contain an image
_TEXTS = 1 << 13  # rows if it contains text
T = TypeVar("T")


class Share:
    """Images K, K + N, K + 2 N, ... of several sources as one stream, counted from 1; `text` is "K/N".

    The others are counted and nothing else is done with them: a share of a list of a billion names is soon found.
    """

    def __init__(self, text: str = "1/1") -> None:
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        part, self._parts = map(int, found.groups()) if found else (0, 0)
        if not 1 <= part <= self._parts:
            raise DataError(f"--shard must be K/N with K from 1 to N, such as 3/16; found {text!r}")
        self._skip = part - 1

    def of(self, images: Iterable[T]) -> Iterator[T]:
        """Those of the next source."""
        if self._parts == 1:
            yield from images
            return
        passed = count()
        numbered = map(itemgetter(0), zip(images, passed, strict=False))  # in C: seven times as fast as a loop
        yield from islice(numbered, self._skip, None, self._parts)
        self._skip = (self._skip - next(passed)) % self._parts


def items(paths: Sequence[str], every: Fraction | None = None, share: Share | None = None) -> Iterator[Item]:
    """Yield the images of all `paths` lazily, in order; with `every` the frames of films, so many seconds apart.

    A folder yields the pictures below it, sorted, including formats that daptune cannot read: each gets a row. A .txt
    or .lst file, or `-` (standard input), has one path per line. A .csv, .tsv or .parquet table has a column `path` or
    `image` (Parquet also bytes); its paths are relative to its folder, and each image is named as in the table. Any
    other path is one file, which need not exist.
    Raises DataError for a list or a table that cannot be read.
    """
    share = Share() if share is None else share
    for path in paths:
        if path == "-":
            yield from _lines(sys.stdin, every, share)
            continue
        place = Path(path).expanduser()
        if place.is_dir():
            yield from _files(image_files(place, unread=True, films=every is not None), every, share)
        elif (suffix := place.suffix.lower()) in LIST_SUFFIXES:
            yield from _list_file(place, every, share)
        elif suffix in (".parquet", ".pq"):
            yield from _parquet(place, share)
        elif suffix in TABLE_SUFFIXES:
            yield from _csv(place, share)
        else:
            yield from _files([place], every, share)


def image_sources(images: Any) -> list[ImageSource]:
    """Sources of a list of images, of a data set, or of the image files below one folder.

    Raises DataError for anything else.
    """
    if isinstance(images, ImageTable):
        return list(images.images)
    if is_dataset(images):
        if not hasattr(images, "__len__") or isinstance(images, Mapping):
            raise DataError(
                f"expected one split of a data set with a length, found {type(images).__name__}; choose a split, such "
                "as dataset['test'], and load it without streaming."
            )
        return dataset_images(images)
    if isinstance(images, str | Path):
        folder = Path(images).expanduser()
        if not folder.is_dir():
            found = "pass one file as a list" if folder.exists() else "there is no such folder"
            raise DataError(f"expected a list of images or a folder, found {str(images)!r}; {found}.")
        return list(image_files(folder, unread=True))
    if isinstance(images, bytes | Image.Image) or not isinstance(images, Iterable):
        raise DataError(f"expected a list of images, found one {type(images).__name__}; pass it as a list.")
    return [image_cell(image) for image in images]


def spelt(text: object) -> str:
    """A path as text; bytes that are not UTF-8 are escaped, so that every row can be written."""
    return os.fsencode(str(text)).decode("utf-8", "backslashreplace")


def _files(paths: Iterable[Path], every: Fraction | None, share: Share) -> Iterator[Item]:
    """The images of a share, or of the frames of films too."""
    if every is None:
        return (Item(spelt(path), path) for path in share.of(paths))
    return share.of(chain.from_iterable(_frames(path, every) for path in paths))


def _frames(path: Path, every: Fraction) -> Iterator[Item]:
    """The image, or the frames of a film."""
    if not is_film_file(path):
        yield Item(spelt(path), path)
        return
    for frame in frames(path, every, spelt(path)):
        yield Item(str(frame), frame)
        del frame  # before the next one is decoded


def _lines(lines: Iterable[str], every: Fraction | None, share: Share) -> Iterator[Item]:
    named = filter(str.strip, lines)
    if every is None:
        return _files(map(_named, share.of(named)), None, Share())
    return _files(map(_named, named), every, share)


def _named(line: str) -> Path:
    return _expanded(str(with_slashes(Path(), line.rstrip("\r\n"))))


def _expanded(text: str) -> Path:
    """A path whose `~` is the user's folder; one of a user that is not there is a file that is not there."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _list_file(path: Path, every: Fraction | None, share: Share) -> Iterator[Item]:
    refused = told(lambda why: DataError(f"the list {path} cannot be read: {why}"))
    with refused, io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", errors="surrogateescape") as stream:
        yield from _lines(stream, every, share)


def _csv(path: Path, share: Share) -> Iterator[Item]:
    rows = csv_rows(path)
    header = next(rows, [])
    place = header.index(_image_column(path, header))
    for number, row in share.of(enumerate(rows, start=1)):
        yield _cell(path, number, row[place].strip())


def _parquet(path: Path, share: Share) -> Iterator[Item]:
    with open_parquet(path) as table:
        column = _image_column(path, table.schema_arrow.names)
        size = _TEXTS if str(table.schema_arrow.field(column).type) in ("string", "large_string") else _ROWS
        parts = (batch.column(0).to_pylist() for batch in table.iter_batches(size, columns=[column]))
        for number, cell in share.of(enumerate(chain.from_iterable(parts), start=1)):
            yield _cell(path, number, cell)


def _image_column(path: Path, columns: Sequence[str]) -> str:
    column = find_column(columns, IMAGE_COLUMNS)
    if column is None:
        raise DataError(
            f"{path.name}: expected a column for images ({', '.join(IMAGE_COLUMNS[:4])}), found "
            f"{', '.join(columns) or 'no columns'}; rename one in the header."
        )
    return column


def _cell(table: Path, number: int, cell: Any) -> Item:
    """An empty cell becomes an image of zero bytes, so that its row has an error."""
    name = cell.get("path") if isinstance(cell, dict) else cell
    name = spelt(name) if name and isinstance(name, str) else f"{table.name}:{number}"
    try:
        image = image_cell(cell) if cell else b""
    except DataError as error:
        raise DataError(f"{table.name}, row {number}: {error}") from None
    if isinstance(image, Path):
        return Item(name, with_slashes(table.parent, str(image)))
    return Item(name, image if isinstance(image, bytes) else b"")
