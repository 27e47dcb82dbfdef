"""Does it help to answer to a whole set of images at once (`predict --transductive`, TransCLIP)? Where does it lose?

    python -m studies.transductive --tasks TASKS --out studies/results/transductive.jsonl     # runs what is missing
    python -m studies.transductive --out studies/results/transductive.jsonl                   # the tables of the page
    python -m studies.transductive --memory     # time and memory of 100,000 images and 1,000 classes

Settings are the paper's, and nothing is chosen on test images. Columns: the method alone; the test images as one set;
also with the labelled images (gamma by validation images); and what other unlabelled images, those of the training
folder that were not drawn, do for single test images, as `fit(unlabelled=)` does it. Then the same set with what the
official code does.
"""

import argparse
import json
import time
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from daptune import FewShotClassifier, load_backbone
from daptune.bench.measure import evenly
from daptune.bench.memory import peak_bytes
from daptune.clip.backbone import Backbone
from daptune.data.cache import Decoder
from daptune.data.loader import ImageLoader
from daptune.data.sources import read_source
from daptune.data.table import ImageTable
from daptune.files import json_lines
from daptune.train.features import EncodedImages
from daptune.transductive import TransductiveConfig, transduce
from studies.runs import mean_and_deviation

TASKS = {"demo": "tiny", "digits": "tiny", "clothing": "photo", "eurosat": "photo"}
METHODS = ("zero_shot", "prototype", "tip_adapter")
SHOTS, SEEDS = (1, 4, 16), (1, 2, 3)
MOST = 1500
"""Test images of a task, and other unlabelled ones."""
WAYS = ("alone", "as a set", "with labelled", "later images")
OFFICIAL = ("official_rows", "official_prior", "official_nearest")
Floats = NDArray[np.floating[Any]]


class Features:
    """Features (n, D) of images as the backbone gives them, each encoded once."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone, self._known = backbone, dict[Any, torch.Tensor]()

    def __call__(self, table: ImageTable) -> torch.Tensor:
        rows = [row for row, image in enumerate(table.images) if image not in self._known]
        if rows:
            part = table.subset(rows)
            loader = ImageLoader(part, self.backbone.preprocess, 64, drop_last=False, decoder=Decoder(0))
            found, _ = EncodedImages(loader, self.backbone.clip.encode_image, self.backbone.device).encoded()
            self._known |= zip(part.images, found, strict=True)
        return torch.stack([self._known[image] for image in table.images])


def unit(features: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = F.normalize(features.float(), dim=-1).numpy()
    return found


def answers(classifier: FewShotClassifier, features: torch.Tensor) -> NDArray[np.float32]:
    with torch.no_grad():
        logits = classifier.method_.answer(features).float() / classifier.record_.temperature
    found: NDArray[np.float32] = logits.softmax(dim=-1).numpy()
    return found


def measure(classifier: FewShotClassifier, features: Features, test: ImageTable, pool: ImageTable) -> dict[str, float]:
    """Accuracy on the test images by way."""

    def right(p: Floats) -> float:
        return float((p.argmax(axis=1) == test.labels).mean())

    z, p = unit(features(test)), answers(classifier, features(test))
    labelled = unit(features(classifier.train_table_)), classifier.train_table_.labels
    held = classifier.val_table_
    val = None if held is None else (unit(features(held)), held.labels)
    found = {"alone": right(p), "as a set": right(transduce(z, p, classifier.support).assignments)}
    found["with labelled"] = right(transduce(z, p, labelled, val).assignments)
    for name in OFFICIAL:
        with_labelled = transduce(z, p, labelled, val, TransductiveConfig(**{name: True}))
        found[f"with labelled, {name}"] = right(with_labelled.assignments)
    found["as a set, official_prior"] = right(
        transduce(z, p, None, None, TransductiveConfig(official_prior=True)).assignments
    )
    taken = set(classifier.train_table_.images)
    others = pool.subset([row for row, image in enumerate(pool.images) if image not in taken])
    if not len(others):  # all were drawn
        return found
    learned = transduce(unit(features(others)), answers(classifier, features(others)), labelled, val)
    weights, bias = learned.rule
    found["later images"] = right(learned.prior_weight * np.log(np.maximum(p, 1e-30)) + z @ weights.T + bias)
    return found


def run(root: Path, out: Path) -> None:
    """Append a line for each task, method, shots and seed that the file lacks."""
    done = {(row["task"], row["method"], row["shots"], row["seed"]) for row in read(out)}
    for task, name in TASKS.items():
        wanted = [key for key in product((task,), METHODS, SHOTS, SEEDS) if key not in done]
        if not wanted:
            continue
        backbone = load_backbone(name, precision="fp32")
        splits, decoder, features = read_source(root / task), Decoder(), Features(backbone)
        if splits.test is None:
            raise SystemExit(f"{root / task} has no test images")
        test, pool = evenly(splits.test, MOST), evenly(splits.train, MOST)
        for _, method, shots, seed in wanted:
            classifier = FewShotClassifier(method, backbone, shots=shots, seed=seed)
            classifier.fit(splits.train, val=splits.val, decoder=decoder)
            found = measure(classifier, features, test, pool)
            row = {"task": task, "method": method, "shots": shots, "seed": seed}
            row["accuracy"] = {way: round(value, 4) for way, value in found.items()}
            with out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")


def read(out: Path) -> list[dict[str, Any]]:
    text = out.read_text("utf-8") if out.exists() else ""
    return [row for _, row in json_lines(text) if not isinstance(row, ValueError)]


def report(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown: accuracy by way for each task, method and shots; and how much each way changes it."""
    lines = ["| task | method | shots | " + " | ".join(WAYS) + " |", "|---" * (3 + len(WAYS)) + "|"]
    changes: dict[str, list[float]] = defaultdict(list)
    for task, method, shots in product(TASKS, METHODS, SHOTS):
        own = [row["accuracy"] for row in rows if (row["task"], row["method"], row["shots"]) == (task, method, shots)]
        if own:
            there = [way for way in WAYS if way in own[0]]
            cells = [mean_and_deviation([row[way] for row in own]) if way in there else "–" for way in WAYS]
            lines.append(f"| {task} | {method} | {shots} | " + " | ".join(cells) + " |")
            for way in own[0]:
                changes[way].append(float(np.mean([row[way] - row["alone"] for row in own])))
    lines += ["", "| way | mean change, points | worst | best | rows that lose |", "|---|---|---|---|---|"]
    for way, found in changes.items():
        if way != "alone":
            figures = (f"{100 * value:+.1f}" for value in (np.mean(found), min(found), max(found)))
            lines.append(f"| {way} | " + " | ".join(figures) + f" | {sum(x < 0 for x in found)} of {len(found)} |")
    return lines


def memory(images: int = 100_000, classes: int = 1_000, size: int = 512) -> None:
    """Made-up features and a prior from noisy class directions."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, size), dtype=np.float32)
    words = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    z, p = np.empty((images, size), np.float32), np.empty((images, classes), np.float32)
    for start in range(0, images, 5_000):
        rows = slice(start, start + 5_000)
        noise = 2 * rng.standard_normal((len(z[rows]), size), dtype=np.float32)
        around = centres[rng.integers(classes, size=len(noise))] + noise
        z[rows] = around / np.linalg.norm(around, axis=1, keepdims=True)
        scores = np.exp(30 * z[rows] @ words.T)
        p[rows] = scores / scores.sum(axis=1, keepdims=True)
    made, start_time = peak_bytes("cpu"), time.perf_counter()
    transduce(z, p)
    seconds = time.perf_counter() - start_time
    print(f"{images:,} x {classes:,}: {seconds:.0f} s, peak {peak_bytes('cpu') / 1e9:.2f} GB ({made / 1e9:.2f} before)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, help="folder with a folder a task")
    parser.add_argument("--out", type=Path, help="results, a line a run")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    if options.tasks is not None and options.out is not None:
        run(options.tasks, options.out)
    if options.out is not None:
        print("\n".join(report(read(options.out))))
    if options.memory:
        memory()


if __name__ == "__main__":
    main()
