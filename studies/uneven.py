"""Uneven classes: what even draws, and weights in the loss, are worth where some have a tenth of the others' images.

    python -m studies.uneven --tasks TASKS --out studies/results/uneven.jsonl

TASKS/clothing/ has train/ and test/ with a folder a class. Of its ten classes, five drawn by the seed have 10 training
images and the others 100. A row of ROWS is a way to learn from them; all measure the same test images, in float32 and
on one thread. Nothing is chosen here, so test images may be measured. Results that `--out` lacks are run and added.
"""

import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from daptune.classifier import FewShotClassifier
from daptune.data.cache import Decoder
from daptune.data.sources import read_source
from daptune.data.table import ImageTable
from daptune.evaluate import measure
from daptune.files import json_line, json_lines
from studies.runs import arguments, mean_and_deviation

TASK, SEEDS, COMMON, RARE = "clothing", (1, 2, 3), 100, 10
METHODS: dict[str, dict[str, Any]] = {"linear_probe": {}, "lp_pp": {}, "coop": {"views": 4}}  # training settings
ROWS: dict[str, dict[str, Any]] = {
    "16 images a class": {"shots": 16},
    "all, shuffled": {"train_options": {"sampling": "shuffled"}},
    "all, balanced": {"train_options": {"sampling": "balanced"}},
    "all, class_weight auto": {"class_weight": "auto"},
}
OF_EPOCHS = "all, balanced"  # a way to draw epochs, which the probes do not have
FIGURES = {"macro_f1": "macro-F1", "accuracy": "accuracy", "rare": "recall, rare classes", "common": "recall, others"}


def uneven(table: ImageTable, seed: int) -> tuple[ImageTable, list[int]]:
    """RARE images of half of the classes, drawn by the seed, and COMMON of the others; and the rare classes."""
    stream = random.Random(f"uneven {seed}")
    classes = range(len(table.class_names))
    rare = sorted(stream.sample(classes, len(classes) // 2))
    rows: list[int] = []
    for label in classes:
        own = np.flatnonzero(table.labels == label).tolist()
        rows += stream.sample(own, RARE if label in rare else COMMON)
    return table.subset(rows), rare


def run(method: str, row: str, seed: int, train: ImageTable, test: ImageTable, decoder: Decoder) -> dict[str, Any]:
    """The result of one run, figures from 0 to 1."""
    part, rare = uneven(train, seed)
    settings = dict(ROWS.get(row, {}))
    training = METHODS.get(method, {}) | settings.pop("train_options", {})
    classifier = FewShotClassifier(method, "tiny", seed=seed, precision="fp32", train_options=training, **settings)
    began = time.perf_counter()
    classifier.fit(part, decoder=decoder)
    seconds = time.perf_counter() - began
    found = measure(classifier.method_, test, decoder=decoder)
    return {
        "method": method, "row": row, "seed": seed, "images": len(classifier.train_table_),
        "seconds": round(seconds, 2), "macro_f1": found.macro_f1, "accuracy": found.accuracy,
        "rare": float(found.per_class[rare].mean()), "common": float(np.delete(found.per_class, rare).mean()),
    }  # fmt: skip


def report(results: list[dict[str, Any]]) -> str:
    """Markdown, a line for each method and row, means and deviations over seeds."""
    lines = ["| method | learned from | " + " | ".join(FIGURES.values()) + " |", "|---" * (2 + len(FIGURES)) + "|"]
    for method, row in dict.fromkeys((found["method"], found["row"]) for found in results):
        own = [found for found in results if (found["method"], found["row"]) == (method, row)]
        cells = [mean_and_deviation([found[figure] for found in own]) for figure in FIGURES]
        lines.append(f"| `{method}` | {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    options = arguments(__doc__).parse_args()
    out: Path = options.out
    torch.set_num_threads(1)
    folder, decoder = options.tasks / TASK, Decoder()
    train = read_source(folder / "train").train
    test = read_source(folder / "test", label_names=train.class_names).train
    done = [row for _, row in json_lines(out.read_text("utf-8"))] if out.exists() else []
    known = {(found["method"], found["row"], found["seed"]): found for found in done}
    wanted = [("zero_shot", "nothing"), *((method, row) for method in METHODS for row in ROWS)]
    results = []
    for method, row in wanted:
        if row == OF_EPOCHS and method != "coop":
            continue
        for seed in SEEDS:
            if (method, row, seed) not in known:
                found = known[method, row, seed] = run(method, row, seed, train, test, decoder)
                with out.open("a", encoding="utf-8") as file:
                    file.write(json_line(found))
                print(json.dumps(found), flush=True)
            results.append(known[method, row, seed])
    print(report(results))


if __name__ == "__main__":
    main()
