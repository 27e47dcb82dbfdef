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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from daptune.bench.job import Outcome, head, prepare
from daptune.bench.plan import Experiment, Job, MethodRow
from daptune.bench.results import Result
from daptune.classifier import FewShotClassifier
from daptune.data import ImageLoader
from daptune.presets import resolve
from studies.curve import Curve, of_method
from studies.defaults import TASKS
from studies.recipe_table import report
from studies.runs import arguments, part, run_study

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


def plan(options: argparse.Namespace) -> list[Experiment]:
    """The runs of PLAN."""
    found = []
    for (method, count), (tasks, rates, seeds) in PLAN.items():
        if method in options.methods and count in options.shots:
            settings = {f"recipe {rate:g}": recipe(method, count, rate) for rate in rates} | variants(method, count)
            rows = [MethodRow(method, label, *given) for label, given in settings.items()]
            found.append(part(tasks, rows, [count], seeds))
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


def run_along(jobs: Sequence[Job], root: Path, device: str = "cpu") -> list[Outcome]:
    """As `daptune.bench.job.run_jobs`, with looks along the run; the clock counts seconds of the processor."""
    classifier, splits, tests = prepare(jobs[0], root, device)
    assert tests.val is not None
    held_out, curves = tests.val, list[Curve]()

    def before(ready: FewShotClassifier) -> None:
        val = ImageLoader(held_out, ready.backbone_.preprocess, 256, workers=0)
        curves.append(of_method(ready.method_, val, clock=time.process_time))

    classifier.fit(replace(splits, val=None), before=before, progress=lambda state: curves[0].progress(state))
    (curve,) = curves
    along = {"steps": curve.steps, "right": curve.right, "images": [len(held_out)], "seconds": curve.seconds}
    accuracy = {"val": curve.right[-1] / len(held_out)}
    record, drawn = classifier.record_, classifier.train_table_
    return [
        Outcome(
            Result(
                **head(job), accuracy=accuracy, curve=along, images=len(drawn), split_hash=drawn.fingerprint(),
                backbone=record.backbone, versions=record.versions, class_names=tuple(record.class_names),
                method_config=record.method_config, train_config=record.train_config,
            )
        )
        for job in jobs
    ]  # fmt: skip


def main() -> None:
    parser = arguments(__doc__, processes=1)
    parser.add_argument("--methods", nargs="+", default=["coop", "dapt"], choices=["coop", "dapt"])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 4, 16])
    options = parser.parse_args()
    print(report(run_study("recipe", plan(options), options, work=run_along)))


if __name__ == "__main__":
    main()
