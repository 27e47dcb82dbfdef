"""Read any source of labelled images and return Splits.

a folder of class folders, also below train/ val/ test/             folders.py
a folder or file with CoOp's split_zhou_*.json                      zhou.py
a benchmark data set as its makers pack it                          benchmarks/archives.py
.csv .tsv .parquet with the columns path and label (and split)      tabular.py
a Hugging Face style data set, or a dict of splits                  hub_data.py
(images, labels): paths, PIL images, uint8 arrays; names or integers
data:NAME, a benchmark data set below $DAPTUNE_DATA or ./data       benchmarks/
shot_<k>-seed_<s>.pkl, the draw of an official run                  benchmarks/pickles.py
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from daptune.data.benchmarks.archives import find_archive, read_archive
from daptune.data.benchmarks.pickles import read_pickle
from daptune.data.benchmarks.reading import read_benchmark
from daptune.data.folders import read_folder
from daptune.data.hub_data import is_dataset, read_dataset
from daptune.data.labels import check_single, index_labels, is_blank
from daptune.data.multi_label import cell_text, in_several, index_rows, names_in, read_indicator
from daptune.data.table import ImageSource, ImageTable, Splits, image_cell, split_kind
from daptune.data.tabular import TABLE_SUFFIXES, read_table_file
from daptune.data.zhou import find_split_file, read_zhou
from daptune.errors import DataError

BENCHMARK = "data:"


def read_source(
    source: object,
    *,
    label_names: Sequence[str] | None = None,
    image_root: str | Path | None = None,
    training: bool = True,
    own_ids: bool = False,
    multi_label: bool = False,
) -> Splits:
    """Read any source of labelled images; nothing is decoded, and tables are passed through.

    label_names: the class list, if known before (an adapter's, or names for integer labels); sources with other
        classes are refused. Default: the source's own classes, sorted.
    image_root: folder of the images named in a split JSON, if it is not beside the file.
    training: require training images; False accepts a source of test images alone.
    own_ids: class folders called by ids or numbers stay so, even with a list of names beside them.
    multi_label: images have any number of labels: `a|b` in a table or split JSON, or lists of them.
    Raises DataError in one line for anything missing or ambiguous.
    """
    if multi_label:
        splits = _read_several(source, label_names, image_root, own_ids)
    else:
        splits = _read(source, label_names, image_root, own_ids)
    if training and not len(splits.train) and (others := splits.present()):
        where = f"{source}" if isinstance(source, str | Path) else "the source"
        root = next(iter(others.values())).root
        apart = len(others) == 1 and root is not None and split_kind(root.name) is not None  # a folder of its own
        raise DataError(
            f"{where}: expected images to learn from, found {' and '.join(others)} images alone; add a train split"
            f"{f', or give {root} itself' if apart else ''}. They can be measured on as they are."
        )
    return splits


def _read(source: object, label_names: Sequence[str] | None, image_root: str | Path | None, own_ids: bool) -> Splits:
    if isinstance(source, str | Path) and str(source).startswith(BENCHMARK):
        return _with_names(read_benchmark(str(source).removeprefix(BENCHMARK)), label_names, source)
    if isinstance(source, str | Path):
        return _read_path(Path(os.path.expanduser(source)), label_names, image_root, own_ids)
    if isinstance(source, Splits | ImageTable):
        return source if isinstance(source, Splits) else Splits(source)
    if isinstance(source, Mapping) or is_dataset(source):
        return read_dataset(source, label_names)
    if isinstance(source, tuple) and len(source) == 2:
        return Splits(table_from_lists(source[0], source[1], label_names=label_names))
    raise DataError(
        "expected a folder, a .csv, .tsv, .parquet or .json file, a Hugging Face data set or (images, labels)"
        f", found {type(source).__name__}."
    )


def _read_several(
    source: object, label_names: Sequence[str] | None, image_root: str | Path | None, own_ids: bool
) -> Splits:
    path = Path(os.path.expanduser(source)) if isinstance(source, str | Path) else None
    if path is not None and path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        return read_table_file(path, label_names, multi_label=True)
    if path is not None and path.is_file() and path.suffix.lower() == ".json":
        return in_several(read_zhou(path, image_root, multi_label=True), label_names, path.name)
    if isinstance(source, tuple) and len(source) == 2:
        return Splits(table_from_lists(source[0], source[1], label_names=label_names, multi_label=True))
    if isinstance(source, Mapping) or is_dataset(source):
        return read_dataset(source, label_names, multi_label=True)
    return in_several(
        _read(source, None, image_root, own_ids), label_names, "the source" if path is None else str(path)
    )


def table_from_lists(
    images: Sequence[Any] | npt.NDArray[Any],
    labels: Sequence[Any] | npt.NDArray[Any],
    *,
    label_names: Sequence[str] | None = None,
    multi_label: bool = False,
) -> ImageTable:
    """A table from n images (paths, PIL images, uint8 arrays, bytes) and n labels (names or integers).

    multi_label: n lists of labels, texts `a|b`, or an indicator matrix (n, C) as a 2-D array.
    """
    if isinstance(images, str | bytes | Path | Image.Image):
        raise DataError(f"expected a list of images, found one {type(images).__name__}; pass it as a list.")
    sources = tuple(image_cell(image) for image in images)
    values = np.asarray(labels).tolist() if isinstance(labels, np.ndarray) else list(labels)
    if len(sources) != len(values):
        raise DataError(f"expected one label an image, found {len(sources)} images and {len(values)} labels.")
    if not sources:
        raise DataError("expected images with labels, found an empty list.")
    if multi_label:
        if (found := read_indicator(labels, "the labels")) is not None:
            names = tuple(map(str, range(found.shape[1]))) if label_names is None else tuple(label_names)
        else:
            rows = [value if isinstance(value, list | tuple | set) else names_in(cell_text(value)) for value in values]
            found, names = index_rows([list(row) for row in rows], label_names, "the labels")
        table = ImageTable(sources, found, names, _common_folder(sources))
        refuse_two_labels(sources, [table.label_text(row) for row in range(len(table))])
        return table
    if (blank := next((place for place, value in enumerate(values) if is_blank(value)), None)) is not None:
        raise DataError(f"image {blank} has no label, found {values[blank]!r}; give it one, or leave it out.")
    check_single(values, "the labels")
    refuse_two_labels(sources, values)
    indices, names = index_labels(values, label_names)
    return ImageTable(sources, indices, names, _common_folder(sources))


def labelled(
    images: Any,
    labels: Any,
    class_names: Sequence[str],
    numbers: Sequence[int] | None = None,
    *,
    multi_label: bool = False,
) -> ImageTable:
    """Images to measure on, of known classes: with `labels`, or the test images of a source, or all of it.

    `numbers` are the integer labels of the classes, if these were learned from integers. Raises DataError for another.
    """
    if labels is None:
        splits = read_source(images, label_names=class_names, training=False, multi_label=multi_label)
        return splits.test or splits.whole()
    if numbers is None or multi_label:
        return table_from_lists(images, labels, label_names=class_names, multi_label=multi_label)
    columns = {number: column for column, number in enumerate(numbers)}
    if strange := [label for label in labels if label not in columns]:
        raise DataError(f"label {strange[0]} is not among the {len(columns)} classes; measure on the others.")
    return table_from_lists(images, [columns[label] for label in labels], label_names=class_names)


def refuse_two_labels(sources: Sequence[ImageSource], labels: Sequence[object]) -> None:
    """Raise DataError for a path with two different labels."""
    seen: dict[Path, object] = {}
    for source, label in zip(sources, labels, strict=True):
        if isinstance(source, Path) and seen.setdefault(source, label) != label:
            raise DataError(f"{source} is labelled both {seen[source]!r} and {label!r}; keep one of the two.")


def _read_path(path: Path, label_names: Sequence[str] | None, image_root: str | Path | None, own_ids: bool) -> Splits:
    if path.is_dir():
        if split_file := find_split_file(path):
            return read_zhou(split_file, image_root, label_names)
        if archive := find_archive(path):
            return read_archive(*archive, label_names)
        return read_folder(path, label_names, own_ids)
    if not path.exists():
        raise DataError(f"no folder or file at {path}; give a folder with one sub-folder of images per class.")
    suffix = path.suffix.lower()
    if suffix == ".pkl":
        return _with_names(read_pickle(path, image_root), label_names, path)
    if suffix == ".json":
        return read_zhou(path, image_root, label_names)
    if suffix in TABLE_SUFFIXES:
        return read_table_file(path, label_names)
    raise DataError(
        f"{path.name} is neither a folder nor a .csv, .tsv, .parquet or .json file; unpack archives, "
        "and save spreadsheets as CSV with the columns path,label."
    )


def _with_names(splits: Splits, label_names: Sequence[str] | None, source: object) -> Splits:
    """The same images with labels as positions in label_names, which must contain every class with the same spelling.

    Names that CLIP reads alike are allowed: ImageNet has some.
    """
    own = splits.whole().class_names
    if label_names is None or tuple(label_names) == own:
        return splits
    places = {name: place for place, name in enumerate(label_names)}
    lacking = [name for name in own if name not in places]
    if lacking:
        raise DataError(
            f"{source}: {len(lacking)} of its {len(own)} classes, the first {lacking[0]!r}, are not among the "
            f"{len(places)} classes asked for; measure with its own class names (--new-classes)."
        )
    numbers = np.array([places[name] for name in own], dtype=np.int64)
    return splits.each(lambda table: replace(table, labels=numbers[table.labels], class_names=tuple(label_names)))


def _common_folder(sources: Sequence[ImageSource]) -> Path | None:
    paths = [source for source in sources if isinstance(source, Path)]
    if not paths or len({path.is_absolute() for path in paths}) > 1:
        return None
    try:
        return Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError:  # two Windows drives
        return None
