"""Data set name in a plan -> Splits: `demo`, `demo/<style or set>`, a benchmark's name, or the path of a folder."""

from functools import lru_cache
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from daptune.data.benchmarks import read_benchmark
from daptune.data.benchmarks.registry import canonical
from daptune.data.check import without_missing
from daptune.data.demo import ARCHIVE, PHOTO_ARCHIVE, demo_styles, photograph_sets
from daptune.data.fewshot import split_holdout
from daptune.data.labels import index_labels
from daptune.data.sources import read_source
from daptune.data.table import ImageTable, Splits
from daptune.errors import DataError, suggest
from daptune.presets import dataset_names

DEMO = "demo"
HOLDOUT = 0.2  # share of images held out for testing if a folder has no test split, as in `daptune fit`
_SPLITS = {"support": "train", "validation": "val", "test": "test"}


def known_names() -> list[str]:
    """All names that are not paths."""
    return [DEMO, *(f"{DEMO}/{part}" for part in (*demo_styles(), *photograph_sets())), *dataset_names()]


def is_path(name: str) -> bool:
    """Whether a name is a path: it has a slash, or begins with a dot or `~`."""
    return name not in known_names() and (name.startswith((".", "~")) or "/" in name or "\\" in name)


def check_name(name: str) -> str:
    """The name, in daptune's spelling for a benchmark. Raises DataError for an unknown name or a missing path."""
    if not is_path(name):
        name = canonical(name)
    if is_path(name):
        if not Path(name).expanduser().exists():
            raise DataError(f"no data set at {name!r}; known names are {', '.join(known_names())}")
    elif name not in known_names():
        raise DataError(f"there is no data set {name!r}.{suggest(name, known_names())} For a folder, write ./{name}")
    return name


@lru_cache(maxsize=16)
def read_dataset(name: str, root: Path) -> Splits:
    """The images of a data set; `root` is the folder of the benchmark data sets. Raises DataError."""
    if not is_path(name):
        kind, _, style = name.partition("/")
        return _demo(style or demo_styles()[0]) if kind == DEMO else read_benchmark(name, root)
    return _read_path(name, multi_label=False)


@lru_cache(maxsize=16)
def read_several(path: str) -> Splits:
    """The images of a table or folder, with any number of labels. Raises DataError."""
    return _read_path(path, multi_label=True)


def _read_path(name: str, *, multi_label: bool) -> Splits:
    source = read_source(Path(name).expanduser(), training=False, multi_label=multi_label)
    splits = without_missing(source, name)
    if splits.test is None and len(splits.train):
        train, test = split_holdout(splits.train, HOLDOUT, 1)
        return Splits(train, splits.val, test, splits.ignored)
    return splits


def _demo(style: str) -> Splits:
    """A part of the demo pictures, read from the archive without unpacking. Emoji have the class list of the first."""
    photographs = style in photograph_sets()
    source = style if photographs else demo_styles()[0]
    with ZipFile(PHOTO_ARCHIVE if photographs else ARCHIVE) as archive:
        entries = sorted(name for name in archive.namelist() if name.count("/") == 3 and not name.endswith("/"))
        names = sorted({entry.split("/")[2] for entry in entries if entry.startswith(f"{source}/support/")})
        tables = {}
        for part, split in _SPLITS.items():
            if own := [entry for entry in entries if entry.startswith(f"{style}/{part}/")]:
                labels, class_names = index_labels([entry.split("/")[2] for entry in own], names)
                tables[split] = ImageTable(tuple(map(archive.read, own)), labels.astype(np.int64), class_names)
    return Splits.of(tables)
