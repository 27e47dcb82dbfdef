"""Which photographs are trained on, and what is known of each: a path, and a class where the set names one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

IMAGENET = 1000
"""Classes 0..999 are ImageNet's, in the order of their WordNet ids; those of Food101 follow."""


class Photo(NamedTuple):
    """One photograph; `label` is -1 where nothing but the picture is known."""

    source: str
    path: Path
    label: int


def wordnet_ids(folder: Path) -> list[str]:
    """Return ImageNet's 1,000 WordNet ids in order, from the names of the sample pictures, one a class."""
    ids = sorted(path.name.split("_")[0] for path in (folder / "samples").glob("n*.JPEG"))
    if len(ids) != IMAGENET:
        raise SystemExit(f"{folder / 'samples'} should hold one picture for each of 1,000 classes, found {len(ids)}.")
    return ids


def food_names(folder: Path) -> list[str]:
    """Return Food101's class names in order."""
    names = sorted(path.name for path in (folder / "food101" / "train").iterdir() if path.is_dir())
    return [name.replace("_", " ") for name in names]


def _mini(folder: Path, ids: dict[str, int]) -> list[Photo]:
    return [
        Photo("mini-imagenet", path, ids[path.parent.name]) for path in sorted((folder / "mini").glob("*/n*/*.jpg"))
    ]


def _tiny(folder: Path, ids: dict[str, int]) -> list[Photo]:
    root = folder / "tiny-imagenet-200"
    known = [Photo("tiny-imagenet", p, ids[p.name.split("_")[0]]) for p in sorted((root / "train").glob("*/images/*"))]
    rows = [line.split("\t") for line in (root / "val" / "val_annotations.txt").read_text().splitlines()]
    known += [Photo("tiny-imagenet", root / "val" / "images" / row[0], ids[row[1]]) for row in rows]
    return known + [Photo("tiny-imagenet", p, -1) for p in sorted((root / "test" / "images").glob("*"))]


def _samples(folder: Path, ids: dict[str, int]) -> list[Photo]:
    return [Photo("samples", p, ids[p.name.split("_")[0]]) for p in sorted((folder / "samples").glob("n*.JPEG"))]


def _food(folder: Path) -> list[Photo]:
    index = {name.replace(" ", "_"): IMAGENET + i for i, name in enumerate(food_names(folder))}
    pictures = sorted(p for p in (folder / "food101").glob("*/*/*") if re.search(r"\.jpe?g$", p.name, re.IGNORECASE))
    return [Photo("food101", path, index.get(path.parent.name, -1)) for path in pictures]


def _more(folder: Path) -> list[Photo]:
    """Pictures without labels: any folder below `more/`, named after its source."""
    found = sorted(p for p in (folder / "more").rglob("*") if re.search(r"\.(jpe?g|png)$", p.name, re.IGNORECASE))
    return [Photo(path.relative_to(folder / "more").parts[0], path, -1) for path in found]


def photos(folder: Path) -> list[Photo]:
    """Return every training photograph below `folder`, in a fixed order; sets that are absent are left out."""
    ids = {wordnet_id: i for i, wordnet_id in enumerate(wordnet_ids(folder))}
    return [*_mini(folder, ids), *_tiny(folder, ids), *_samples(folder, ids), *_food(folder), *_more(folder)]
