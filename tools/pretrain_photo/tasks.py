"""The evaluation sets: which pictures, which names, which template, and few-shot draws."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from daptune.clip.preprocess import Preprocess

TEMPLATES = {
    "caltech101": "a photo of a {}.",
    "eurosat": "a centered satellite photo of {}.",
    "flowers": "a photo of a {}, a type of flower.",
    "cars": "a photo of a {}.",
    "dtd": "{} texture.",
    "cifar10": "a photo of a {}.",
    "clothing": "a photo of a {}.",
}
SPLITS = {
    "caltech101": "Caltech101",
    "eurosat": "EuroSAT",
    "flowers": "OxfordFlowers",
    "cars": "StanfordCars",
    "dtd": "DescribableTextures",
}
PICTURES = {".jpg", ".jpeg", ".png"}
Row = tuple[Path, int]


@dataclass
class Task:
    """Class names, the rows that few-shot support is drawn from, and the rows that are scored."""

    name: str
    classes: list[str]
    support: list[Row]
    scored: list[Row]

    def shots(self, count: int, seed: int) -> list[int]:
        """Return places in `support`: `count` of each class, or all where there are fewer."""
        rng, places = random.Random(seed), dict[int, list[int]]()
        for place, (_, label) in enumerate(self.support):
            places.setdefault(label, []).append(place)
        return [p for _, found in sorted(places.items()) for p in rng.sample(found, min(count, len(found)))]


def split_task(name: str, folder: Path, split: Path, part: str) -> Task:
    """Return a task by one of CoOp's split files; rows whose picture is absent are left out and counted."""
    table = json.loads((split / f"split_zhou_{SPLITS[name]}.json").read_text())
    if part == "val" or name == "cars":  # the test pictures of Cars are not to be had
        part = "val"
    rows = {key: [(folder / path, label, text) for path, label, text in table[key]] for key in ("train", part)}
    there = {key: [row for row in found if row[0].exists()] for key, found in rows.items()}
    absent = sum(len(found) - len(there[key]) for key, found in rows.items())
    if absent:
        print(f"{name}: {absent} of {sum(map(len, rows.values()))} pictures are absent")
    used = sorted({row[1] for row in there["train"]})
    place = {label: i for i, label in enumerate(used)}
    names = {label: text.replace("_", " ") for _, label, text in rows["train"]}
    support, scored = ([(p, place[k]) for p, k, _ in there[key] if k in place] for key in ("train", part))
    return Task(name, [names[label] for label in used], support, scored)


def folder_task(name: str, folder: Path, part: str) -> Task:
    """Return a task of folders `train/<class>` and `test/<class>`; part "val" scores a fifth of `train` instead."""
    classes = sorted(p.name for p in (folder / "train").iterdir() if p.is_dir())

    def rows(root: Path) -> list[Row]:
        found = [(p, i) for i, c in enumerate(classes) for p in sorted((root / c).iterdir())]
        return [row for row in found if row[0].suffix.lower() in PICTURES]

    train = rows(folder / "train")
    if part == "val":
        random.Random(0).shuffle(train)
        cut = min(len(train) // 5, 2000)
        return Task(name, classes, train[cut:], train[:cut])
    return Task(name, classes, train, rows(folder / "test"))


def load_task(name: str, folder: Path, splits: Path | None, part: str = "test") -> Task:
    """Return a task by name."""
    if name not in SPLITS:
        return folder_task(name, folder, part)
    if splits is None:
        raise SystemExit(f"{name} is defined by CoOp's split file: give its folder as --splits.")
    return split_task(name, folder, splits, part)


def pixels(rows: list[Row], preprocess: Preprocess) -> np.ndarray:
    """Return the pictures as the backbone's transform crops them, uint8 (n, R, R, 3)."""
    out = np.empty((len(rows), preprocess.size, preprocess.size, 3), np.uint8)
    for target, (path, _) in zip(out, rows, strict=True):
        with Image.open(path) as image:
            image.draft("RGB", (2 * preprocess.size, 2 * preprocess.size))
            target[:] = np.asarray(preprocess.crop(image.convert("RGB")))
    return out
