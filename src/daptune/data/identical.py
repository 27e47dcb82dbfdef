"""Identical images: in two classes, in training and test images, and repeated within a class.

Images are compared by a digest of their decoded pixels, taken where `check_readable` decodes them. Files with the same
pixels are identical, whatever their names; of a large image a grid of pixels counts.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from daptune.data.table import ImageSource, ImageTable, describe

GRID = 256
"""Pixels of a side that count at most."""
SHOWN = 3
"""Pairs that a line names."""
NOUNS = {"train": "training images", "val": "validation images", "test": "test images", "all": "images"}
_log = logging.getLogger("daptune")


def pixel_digest(image: Image.Image) -> bytes:
    """16 bytes of the size of an RGB image, and of all its pixels or of a grid of GRID x GRID."""
    size = min(image.width, GRID), min(image.height, GRID)
    some = image if size == image.size else image.resize(size, Image.Resampling.NEAREST)
    about = f"{image.width}x{image.height}".encode()
    return hashlib.blake2b(some.tobytes(), digest_size=16, person=about[:16]).digest()


@dataclass(frozen=True)
class Place:
    """An image: the name of its table, and its row."""

    table: str
    row: int


Pair = tuple[Place, Place]
"""An image, and the first one that is identical to it."""


@dataclass(frozen=True)
class Identical:
    """The identical images of tables by name, "train" first if it is among them.

    contradictions   images of a table that are in it before, with another label
    leaks            images of other tables that are in "train", with any label; one with the same label is named first
    repeats          images of a table that are in it before, with the same label: harmless
    """

    tables: Mapping[str, ImageTable]
    contradictions: tuple[Pair, ...]
    leaks: tuple[Pair, ...]
    repeats: tuple[Pair, ...]

    def lines(self) -> list[str]:
        """What is wrong, a line for each table: counts, the first pairs, and what to do."""
        found = []
        for name, table in self.tables.items():
            noun, whole = NOUNS[name], f"{len(table):,}"
            if pairs := [pair for pair in self.contradictions if pair[0].table == name]:
                found.append(
                    f"{len(pairs)} of {whole} {noun} {_are(pairs)} identical to one of another class: "
                    f"{self._named(pairs)}; keep each image in the class that it shows"
                )
            if pairs := [pair for pair in self.leaks if pair[0].table == name]:
                found.append(
                    f"{len(pairs)} of {whole} {noun} {_are(pairs)} identical to training images: {self._named(pairs)}; "
                    "what is measured on them is optimistic, so keep each image in one of the two"
                )
        return found

    def _named(self, pairs: Sequence[Pair]) -> str:
        roots = {str(table.root.absolute()) for table in self.tables.values() if table.root is not None}
        base = Path(os.path.commonpath(roots)) if roots and len({Path(root).anchor for root in roots}) == 1 else None
        shown = [f"{self._name(one, base)} = {self._name(other, base)}" for one, other in pairs[:SHOWN]]
        more = len(pairs) - SHOWN
        return ", ".join(shown) + (f" and {more} more" if more > 0 else "")

    def _name(self, place: Place, base: Path | None) -> str:
        table = self.tables[place.table]
        source, label = table.images[place.row], table.label_text(place.row)
        inside = isinstance(source, Path) and base is not None and source.absolute().is_relative_to(base)
        name = source.absolute().relative_to(base).as_posix() if inside else describe(source)  # type: ignore[union-attr, arg-type]
        return f"{name} ({label or 'no label'})"


def _are(pairs: Sequence[Pair]) -> str:
    return "is" if len(pairs) == 1 else "are"


def find_identical(tables: Mapping[str, ImageTable], digest: Callable[[ImageSource], bytes | None]) -> Identical:
    """Compare the images of tables that share a class list, by `Decoder.digest`; those without one are left out."""
    contradictions, leaks, repeats = list[Pair](), list[Pair](), list[Pair]()
    trained: dict[bytes, dict[str, Place]] = {}
    for name in sorted(tables, key=lambda name: name != "train"):
        table, before = tables[name], dict[bytes, dict[str, Place]]()  # digest -> label -> the first image
        for row, source in enumerate(table.images):
            if (own := digest(source)) is None:
                continue
            label = table.label_text(row)
            here, same = Place(name, row), before.setdefault(own, {})
            if known := trained.get(own):
                leaks.append((here, known.get(label, next(iter(known.values())))))
            if label in same:
                repeats.append((here, same[label]))
            elif same:
                contradictions.append((here, next(iter(same.values()))))
            same.setdefault(label, here)
        if name == "train":
            trained = before
    return Identical(tables, tuple(contradictions), tuple(leaks), tuple(repeats))


def warn_identical(tables: Mapping[str, ImageTable | None], digest: Callable[[ImageSource], bytes | None]) -> None:
    """Log a warning for images with two labels, and for those that are also training images."""
    for line in find_identical({name: table for name, table in tables.items() if table is not None}, digest).lines():
        _log.warning("%s.", line)
