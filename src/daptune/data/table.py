"""Tables of labelled images and their splits, returned by readers and used by loaders.

Images are not decoded here: an entry is a path, bytes, an image in memory or an item of a data set.
"""

import hashlib
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from daptune.errors import DataError


class MadeImage(ABC):
    """An image that is made when it is asked for, and a name of it for messages, `str()`."""

    @abstractmethod
    def load(self) -> "Path | Image.Image | npt.NDArray[Any] | bytes":
        """The image; called once. Raises DataError if there is none."""


@dataclass(frozen=True, eq=False)
class DatasetItem(MadeImage):
    """An image of a data set, decoded on access: `dataset[index][column]`."""

    dataset: Any
    index: int
    column: str

    def load(self) -> "Path | Image.Image | npt.NDArray[Any] | bytes":
        return image_cell(self.dataset[self.index][self.column])

    def __str__(self) -> str:
        return f"row {self.index}, column {self.column!r}"


ImageSource = Path | Image.Image | npt.NDArray[Any] | bytes | MadeImage


def image_cell(value: object) -> Path | Image.Image | npt.NDArray[Any] | bytes:
    """Convert an image as given by users and data sets, such as Hugging Face's undecoded `{"bytes", "path"}`.

    Raises DataError for other types.
    """
    if isinstance(value, dict) and ("bytes" in value or "path" in value):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, str):
        return Path(value)
    if isinstance(value, bytes | Path | Image.Image | np.ndarray):
        return value
    raise DataError(f"expected an image as a path, a PIL image, a uint8 array or bytes, found {type(value).__name__}.")


@dataclass(frozen=True, eq=False)
class ImageTable:
    """n images with their labels.

    images: n sources, decoded by `images.decode`.
    labels: (n,) int64, each below len(class_names); or (n, C) bool, for images with any number of labels.
    class_names: one name per class, as written by the user; '_' becomes ' ' only in prompts.
    root: folder for relative paths in the fingerprint; None keeps paths unchanged.
    """

    images: tuple[ImageSource, ...]
    labels: npt.NDArray[Any]
    class_names: tuple[str, ...]
    root: Path | None = None

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise DataError(
                f"expected one label per image, found {len(self.images)} images and {len(self.labels)} labels."
            )
        if self.multi_label:
            if self.labels.shape[1] != len(self.class_names):
                raise DataError(
                    f"expected an indicator matrix with a column for each of {len(self.class_names)} classes, found "
                    f"{self.labels.shape[1]}."
                )
            return
        outside = (self.labels < 0) | (self.labels >= len(self.class_names))
        if outside.any():
            raise DataError(
                f"expected labels 0 to {len(self.class_names) - 1} for {len(self.class_names)} class "
                f"names, found {int(self.labels[outside][0])}; give a name for every label."
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have any number of labels."""
        return self.labels.ndim == 2

    def shows(self, label: int) -> npt.NDArray[np.bool_]:
        """Whether each image has this class, (n,)."""
        found: npt.NDArray[np.bool_] = self.labels[:, label] if self.multi_label else self.labels == label
        return found

    def label_text(self, row: int) -> str:
        """The class of an image by name, or its classes as `a|b`."""
        label = self.labels[row]
        return (
            "|".join(self.class_names[c] for c in np.flatnonzero(label))
            if self.multi_label
            else self.class_names[label]
        )

    def __add__(self, other: "ImageTable") -> "ImageTable":
        if self.class_names != other.class_names:
            raise DataError("expected two tables of the same classes; read them with the same label_names.")
        root = self.root if self.root == other.root else None
        labels = np.concatenate([self.labels, other.labels])
        return ImageTable(self.images + other.images, labels, self.class_names, root)

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> "ImageTable":
        """The rows at `indices`, in that order, with all class names."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(self, images=tuple(self.images[i] for i in chosen), labels=self.labels[chosen])

    def of_classes(self, chosen: npt.NDArray[np.int64]) -> "ImageTable":
        """The rows of the chosen classes, which become 0, 1, ... in their order."""
        names = tuple(self.class_names[label] for label in chosen)
        if self.multi_label:
            return replace(self, labels=self.labels[:, chosen], class_names=names)
        numbers = np.full(len(self.class_names), -1, np.int64)
        numbers[chosen] = np.arange(len(chosen))
        kept = self.subset(np.flatnonzero(numbers[self.labels] >= 0))
        return replace(kept, labels=numbers[kept.labels], class_names=names)

    def counts(self) -> npt.NDArray[np.int64]:
        """Images of each class, (C,)."""
        if self.multi_label:
            return self.labels.sum(axis=0).astype(np.int64)
        return np.bincount(self.labels, minlength=len(self.class_names)).astype(np.int64)

    def spread(self) -> list[int]:
        """Images of the smallest and of the largest class that has some."""
        counts = self.counts()[self.counts() > 0].tolist()
        return [min(counts, default=0), max(counts, default=0)]

    def fingerprint(self) -> str:
        """sha256 of each image's path (relative to root) or content, its label and class name, in order.

        Paths are NFC with forward slashes, so that the hash is the same on every system.
        """
        digest = hashlib.sha256()
        for place, (source, label) in enumerate(zip(self.images, self.labels, strict=True)):
            number = "|".join(map(str, np.flatnonzero(label))) if self.multi_label else str(label)
            row = (_identity(source, self.root), number, self.label_text(place))
            digest.update("\0".join(row).encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()


SPLITS = {
    "train": ("train", "training", "support"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
"""The splits of a source, in order, with their usual spellings."""


def split_kind(name: str) -> str | None:
    """`train`, `val` or `test` for any usual spelling of a split's name, else None."""
    return next((kind for kind, names in SPLITS.items() if name.strip().lower() in names), None)


@dataclass(frozen=True)
class Splits:
    """The tables of a source, which share one class list.

    train: empty if a source has only evaluation images.
    ignored: files among the images that are not images (notes, archives).
    """

    train: ImageTable
    val: ImageTable | None = None
    test: ImageTable | None = None
    ignored: tuple[Path, ...] = ()

    @classmethod
    def of(cls, tables: Mapping[str, ImageTable], ignored: Sequence[Path] = ()) -> "Splits":
        """From one or more tables named train, val and test."""
        train = tables["train"] if "train" in tables else next(iter(tables.values())).subset([])
        return cls(train, tables.get("val"), tables.get("test"), tuple(ignored))

    def present(self) -> dict[str, ImageTable]:
        """The non-empty tables by name: train, val, test."""
        tables = {name: getattr(self, name) for name in SPLITS}
        return {name: table for name, table in tables.items() if table is not None and len(table)}

    def each(self, change: Callable[[ImageTable], ImageTable]) -> "Splits":
        """Apply `change` to the non-empty tables."""
        return Splits.of({name: change(table) for name, table in self.present().items()}, self.ignored)

    def whole(self) -> ImageTable:
        """All images in one table."""
        first, *others = self.present().values() or [self.train]
        return sum(others, first)


def describe(source: ImageSource) -> str:
    """A short name of a source for messages."""
    if isinstance(source, Path | MadeImage):
        return str(source)
    if isinstance(source, bytes):
        return f"{len(source)} bytes in memory"
    if isinstance(source, np.ndarray):
        return f"array {source.shape} {source.dtype}"
    return f"image {source.width} x {source.height} in memory"


def _identity(source: ImageSource, root: Path | None) -> str:
    if isinstance(source, Path):
        inside = root is not None and source.is_relative_to(root)
        return unicodedata.normalize("NFC", (source.relative_to(root) if root and inside else source).as_posix())
    if isinstance(source, DatasetItem):
        return f"{getattr(source.dataset, '_fingerprint', '')}/{source.column}/{source.index}"
    if isinstance(source, MadeImage):
        return str(source)
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, np.ndarray):
        return f"{source.shape}/{source.dtype}/{hashlib.sha256(np.ascontiguousarray(source).data).hexdigest()}"
    return f"{source.size}/{source.mode}/{hashlib.sha256(source.tobytes()).hexdigest()}"
