"""A small task with several labels per image: pictures of the demo beside each other, and methods compared on it.

    python -m studies.multi_label make icons composites       a folder with labels.csv, for `daptune fit --multi-label`
    python -m studies.multi_label run composites              the table of docs/multi-label.md
    python -m studies.multi_label losses composites           losses compared on validation images

A composite has one to three pictures of the demo in the corners of a white square, which overlap, or, one in ten, none;
each picture stays within its split. Classes are unbalanced: the k-th of the shuffled ones is drawn with weight
1 / k^0.7.
"""

import argparse
import csv
import random
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from daptune import FewShotClassifier, load_backbone
from daptune.data.cache import Decoder
from daptune.data.demo import ARCHIVE, PHOTO_ARCHIVE
from daptune.data.sources import read_source
from daptune.data.table import Splits
from daptune.evaluate import measure
from daptune.methods.sigmoids import Sigmoids

CLASSES, SIZE = 12, 144
SPLITS = {"train": 600, "val": 200, "test": 400}
PARTS = {
    "icons": (ARCHIVE, {split: f"fluent-emoji-flat/{part}/" for split, part in
                        (("train", "support"), ("val", "validation"), ("test", "test"))}),
    "photographs": (PHOTO_ARCHIVE, {"train": "caltech101/support/", "test": "caltech101/test/"}),
}  # fmt: skip


def pictures(kind: str) -> dict[str, dict[str, list[bytes]]]:
    """Split -> class -> pictures, of the classes with the most training pictures; photographs divide theirs for val."""
    archive, parts = PARTS[kind]
    found: dict[str, dict[str, list[bytes]]] = {split: {} for split in SPLITS}
    with ZipFile(archive) as packed:
        for split, prefix in parts.items():
            for name in sorted(packed.namelist()):
                if name.startswith(prefix) and not name.endswith("/"):
                    found[split].setdefault(name.split("/")[2], []).append(packed.read(name))
    if not found["val"]:
        found["val"] = {name: own[3::4] for name, own in found["train"].items()}
        found["train"] = {name: [p for k, p in enumerate(own) if k % 4 != 3] for name, own in found["train"].items()}
    there = [name for name in found["train"] if name in found["val"] and name in found["test"]]
    kept = sorted(sorted(there), key=lambda name: -len(found["train"][name]))[:CLASSES]
    return {split: {name: own[name] for name in kept} for split, own in found.items()}


def compose(kind: str, folder: Path, *, seed: int = 1, sizes: dict[str, int] | None = None) -> Path:
    """Write the composites and their `labels.csv`; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    stream, rows = random.Random(f"composites {seed}"), []
    found = pictures(kind)
    names = sorted(found["train"])
    stream.shuffle(names)
    weights = [1 / rank**0.7 for rank in range(1, len(names) + 1)]
    for split, count in (sizes or SPLITS).items():
        for number in range(count):
            wanted = 0 if stream.random() < 0.1 else stream.randint(1, 3)
            shown = list(dict.fromkeys(stream.choices(names, weights, k=wanted)))
            canvas, side = Image.new("RGB", (SIZE, SIZE), "white"), SIZE * 2 // 3
            end = SIZE - side
            places = stream.sample([(0, 0), (end, 0), (0, end), (end, end)], len(shown))
            for name, place in zip(shown, places, strict=True):
                with Image.open(BytesIO(stream.choice(found[split][name]))) as picture:
                    tile = picture.convert("RGBA").resize((side, side))
                canvas.paste(tile, place, tile)
            file = f"{split}-{number:04}.png"
            canvas.save(folder / file)
            rows.append((file, "|".join(sorted(shown)), split))
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerows([("path", "label", "split"), *rows])
    return folder / "labels.csv"


def asymmetric(self: Sigmoids, logits: Tensor, labels: Tensor, class_weight: Tensor | None = None) -> Tensor:
    """Ridnik et al. (ICCV 2021), gamma- 4, gamma+ 0 and a shift of 0.05, the official defaults for MS COCO."""
    x, y = self(logits.float()), labels.float()
    shifted = (x.sigmoid() - 0.05).clamp(min=0)
    present, absent = F.logsigmoid(x), torch.log((1 - shifted).clamp(min=1e-8)) * shifted.detach() ** 4
    return -(y * present + (1 - y) * absent).mean()


def weighted(self: Sigmoids, logits: Tensor, labels: Tensor, class_weight: Tensor | None = None) -> Tensor:
    """Positives count as much as negatives: by their numbers in the batch, for all classes together."""
    y = labels.float()
    ratio = (1 - y).sum() / y.sum().clamp(min=1)
    return F.binary_cross_entropy_with_logits(self(logits.float()), y, pos_weight=ratio)


LOSSES = {"binary cross-entropy": Sigmoids.loss, "weighted positives": weighted, "asymmetric": asymmetric}


@contextmanager
def trained_by(loss: Any) -> Iterator[None]:
    """Inside, `Sigmoids` minimise this loss."""
    own = Sigmoids.loss
    Sigmoids.loss = loss  # type: ignore[method-assign]
    try:
        yield
    finally:
        Sigmoids.loss = own  # type: ignore[method-assign]


def fitted(splits: Splits, method: str, shots: int, seed: int, backbone: Any, decoder: Decoder, **more: Any) -> Any:
    """A classifier fitted to the training images, with the drawn validation images for its thresholds."""
    classifier = FewShotClassifier(method, backbone, shots=shots, seed=seed, multi_label=True, **more)
    return classifier.fit(splits, decoder=decoder)


def run(folder: Path, backbones: list[str], seeds: int, methods: list[str]) -> None:
    """mAP, macro-F1 and micro-F1 on the test images: mean and standard deviation over the seeds."""
    splits, decoder = read_source(folder / "labels.csv", multi_label=True), Decoder()
    for name in backbones:
        backbone = load_backbone(name)
        for method in methods:
            for shots in (4, 16):
                rows = []
                for seed in range(1, seeds + 1):
                    made = fitted(splits, method, shots, seed, backbone, decoder)
                    found = made.evaluate(splits.test, decoder=decoder)
                    rows.append([found.mean_average_precision, found.macro_f1, found.micro_f1])
                mean, spread = 100 * np.mean(rows, axis=0), 100 * np.std(rows, axis=0, ddof=1)
                cells = " | ".join(f"{m:.1f} ± {s:.1f}" for m, s in zip(mean, spread, strict=True))
                print(f"| {name} | {method} | {shots} | {cells} |", flush=True)


def losses(folder: Path, name: str, seeds: int, methods: list[str]) -> None:
    """mAP and binary cross-entropy on all validation images, which no fit saw."""
    whole, decoder, backbone = read_source(folder / "labels.csv", multi_label=True), Decoder(), load_backbone(name)
    for method in methods:
        for shots in (4, 16):
            for loss, function in LOSSES.items():
                rows = []
                for seed in range(1, seeds + 1):
                    with trained_by(function):
                        made = fitted(Splits(whole.train), method, shots, seed, backbone, decoder)
                    found = measure(made.method_, whole.val, decoder=decoder)
                    rows.append([100 * found.headline, 100 * found.macro_f1, found.nll])
                mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
                cells = f"{mean[0]:.1f} ± {spread[0]:.1f} | {mean[1]:.1f} ± {spread[1]:.1f} | {mean[2]:.3f}"
                print(f"| {method} | {shots} | {loss} | {cells} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("make")
    make.add_argument("kind", choices=sorted(PARTS))
    make.add_argument("folder", type=Path)
    make.add_argument("--seed", type=int, default=1)
    for verb in ("run", "losses"):
        own = verbs.add_parser(verb)
        own.add_argument("folder", type=Path)
        own.add_argument("--backbone", default="tiny")
        own.add_argument("--methods", default="zero_shot,coop,dapt" if verb == "run" else "coop")
        own.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if given.verb == "make":
        print(compose(given.kind, given.folder, seed=given.seed))
    elif given.verb == "run":
        run(given.folder, given.backbone.split(","), given.seeds, given.methods.split(","))
    else:
        losses(given.folder, given.backbone, given.seeds, given.methods.split(","))


if __name__ == "__main__":
    main()
