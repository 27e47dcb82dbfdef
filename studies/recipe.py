"""How soon do the defaults reach the accuracy that the paper's recipe ends with, on validation images?

    python -m studies.recipe --tasks TASKS --out studies/results/recipe.jsonl

The recipe is `--preset paper`: SGD, cosine by epoch after an epoch of warm-up, 50, 100 or 200 epochs by shots, crops
from 0.08 of an image and flips. Its learning rate is tuned for each task, method and number of shots: the one of RATES
that ends best on the very images that are compared, which favours the recipe. Beside it stand the defaults of
`daptune fit`, one for all, and variants of them. No test image is looked at.

A cell is a task, a method and a number of shots; its curves are means over seeds. Steps are counted at the looks of
`studies.curve`. A step costs the same on both sides, so that seconds go as steps: a row has the processor seconds of
one thread without the looks, but for CoOp, whose runs share the encoded crops of a draw.
"""

import argparse
import time
from itertools import product
from pathlib import Path
from typing import Any

from daptune import fit_method
from daptune.data import ImageLoader
from daptune.presets import resolve
from daptune.train.features import EncodedImages
from studies.curve import of_method
from studies.defaults import TASKS
from studies.job import Job, prepared
from studies.recipe_table import report
from studies.runner import run_missing

RATES = (0.002, 0.02, 0.2)
PLAN: dict[tuple[str, int], tuple[tuple[str, ...], tuple[float, ...], tuple[int, ...]]] = {
    # method, shots -> tasks, rates of the recipe, seeds
    ("coop", 1): (TASKS, RATES, (1, 2)),
    ("coop", 4): (TASKS, RATES, (1, 2)),
    ("coop", 16): (("demo", "digits", "letters", "contrast"), RATES[:2], (1,)),
    ("dapt", 4): (TASKS, RATES[:2], (1,)),
    ("dapt", 16): (("digits",), RATES[:2], (1,)),
}
WORDS = {"context_init": "a photo of a"}


def jobs(methods: list[str], shots: list[int]) -> list[Job]:
    """The runs of PLAN, those of a draw side by side."""
    found = []
    for (method, count), (tasks, rates, seeds) in PLAN.items():
        if method in methods and count in shots:
            settings = {f"recipe {rate:g}": recipe(method, count, rate) for rate in rates} | variants(method, count)
            draws = product(tasks, seeds)
            found += [Job(t, method, count, s, *given, label) for t, s in draws for label, given in settings.items()]
    return found


def variants(method: str, shots: int) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """label -> options, training. "A fifth" has a fifth of the recipe's epochs: at 16 shots the default has fewer.

    CoOp, whose step costs a tenth, has more: other rates, and the recipe with one thing changed.
    """
    fifth = {"epochs": recipe(method, shots, 1.0)[1]["epochs"] // 5}
    found: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"default": ({}, {}), "words": (WORDS, {})}
    if shots < 16:
        found["words, a fifth, lr 0.03"] = WORDS, {"lr": 0.03} | fifth
    if method == "coop":
        options, train = recipe(method, shots, RATES[0])
        found["words, lr 0.003"] = WORDS, {"lr": 0.003}
        found["words, lr 0.03"] = WORDS, {"lr": 0.03}
        found["recipe with words"] = options | WORDS, train
        if shots < 16:
            found["a fifth"] = {}, {"lr": 0.01} | fifth
            found["words, a fifth"] = WORDS, {"lr": 0.01} | fifth
            found["recipe with crops of the default"] = options, {**train, "min_crop": 0.5, "flip": 0.0}
    return found


def recipe(method: str, shots: int, rate: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options and training of the paper at a learning rate, for a data set that it does not name."""
    preset = resolve("paper", method, shots=shots)
    return preset.method, {**preset.train, "lr": rate}


_encoded: dict[tuple[Any, ...], EncodedImages] = {}  # the crops of one draw


def run(job: Job, root: Path) -> dict[str, Any]:
    """Train and look; returns a JSON row. `right` counts validation images, before the first step and at each look."""
    method, loader, config, splits = prepared(job, root)
    val = ImageLoader(splits.val, method.backbone.preprocess, 256, workers=0)
    feed = loader
    if method.trains_on_features:  # a draw's crops are the same at every rate: they are encoded once for all
        key = (job.task, job.shots, job.seed, config.min_crop, config.flip)
        if key not in _encoded:
            _encoded.clear()
            _encoded[key] = EncodedImages(loader, method.encode, method.clip.device)
        feed = _encoded[key]
    curve = of_method(method, val, clock=time.process_time)
    fit_method(method, feed, config, progress=curve.progress)
    return {
        "key": job.key, "task": job.task, "method": job.method, "shots": job.shots, "seed": job.seed,
        "label": job.label, "options": job.options, "train": job.train,
        "accuracy": {"val": round(curve.right[-1] / len(splits.val), 4)},
        "steps": curve.steps, "right": curve.right, "images": len(splits.val),
        "seconds": None if feed is not loader else round(curve.seconds[-1], 2),
        "precision": method.backbone.precision, "backbone": method.backbone.sha256[:12],
        "split": loader.table.fingerprint()[:12],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True, help="folder with a folder a task")
    parser.add_argument("--out", type=Path, required=True, help="results, one JSON line a run")
    parser.add_argument("--processes", type=int, default=1, help="one by default, for the sake of the seconds")
    parser.add_argument("--methods", nargs="+", default=["coop", "dapt"], choices=["coop", "dapt"])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 4, 16])
    options = parser.parse_args()
    wanted = jobs(options.methods, options.shots)
    print(report(run_missing(wanted, options.out, options.tasks, options.processes, run)))


if __name__ == "__main__":
    main()
