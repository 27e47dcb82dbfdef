"""What `--method auto` chooses, and what each candidate reaches on test images: docs/methods, "Which one to choose".

    python -m studies.choice --tasks TASKS --out studies/results/choice.jsonl --task demo clothing --shots 1 4 16

Runs what is missing and prints the tables. The candidates are those that read CLIP's own features, on the features that
`daptune.choose` makes of them; prompts, which rarely fit into its time, are left out. These tables choose nothing: the
order and the rule of `daptune.choose` were fixed before, and the trials see the training images alone. Test images (at
most 300, drawn once) only tell what a choice is worth. The file holds the figures by method; the choices are made of
them when the tables are printed. `TASKS/NAME` has train/ and test/ of class folders; a benchmark data set is named with
`data:`, and read from $DAPTUNE_DATA.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from daptune.choose.choice import CANDIDATES
from daptune.choose.comparison import first_near
from daptune.choose.trials import Trials
from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import Backbone, load_backbone
from daptune.data.cache import Decoder
from daptune.data.fewshot import sample_fewshot
from daptune.data.sources import read_source

METHODS = [name for name in CANDIDATES if name not in ("coop", "coop_vpt", "dapt")]
TESTED = 300


class OnTest(Trials):
    """The one fit on the first `learned` images of the table, measured on the others."""

    learned: int

    def folds_of(self, count: int, repeats: int) -> list[Any]:
        return [(np.arange(self.learned), np.arange(self.learned, len(self.table)))]


def measure(source: object, backbone: Backbone, shots: int, seed: int) -> dict[str, Any]:
    """Cross-validated and test figures by method."""
    splits = read_source(source)
    if splits.test is None:
        raise SystemExit(f"{source} has no test images")
    train = sample_fewshot(splits.train, shots, seed).train
    size = len(splits.test)
    rows = np.random.default_rng(0).choice(size, min(TESTED, size), replace=False)
    classifier, decoder = FewShotClassifier(), Decoder()
    recipes = {name: classifier.settings(name) for name in METHODS}
    trials = Trials(recipes, train, backbone, seed=seed, decoder=decoder).run().to_json()
    final = OnTest(recipes, train + splits.test.subset(np.sort(rows)), backbone, seed=seed, decoder=decoder)
    final.learned = len(train)
    tested = {row.method: {"accuracy": row.accuracy, "nll": row.nll} for row in final.run().rows}
    return {"test": tested, "trials": trials}


def chosen(trials: dict[str, Any]) -> str:
    """The method that `Comparison` chooses, from its figures; they do not depend on the order."""
    figures = {row["method"]: row for row in trials["rows"]}
    if trials["best"] is None:
        return METHODS[0]
    best = figures[trials["best"]]
    accuracies = [figures[name]["accuracy"] for name in METHODS]
    return METHODS[first_near(accuracies, best["accuracy"], best["standard_error"])]


def report(results: list[dict[str, Any]]) -> str:
    """Markdown: test accuracy by task and number of shots, means over seeds, and of the choice."""
    lines = ["| task, shots (seeds) | " + " | ".join(f"`{name}`" for name in METHODS) + " | auto | it chose |"]
    lines.append("|---" * (len(METHODS) + 3) + "|")
    for shots in sorted({row["shots"] for row in results}):
        means = []
        for task in sorted({row["task"] for row in results if row["shots"] == shots}):
            own = [row for row in results if (row["shots"], row["task"]) == (shots, task)]
            picks = [chosen(row["trials"]) for row in own]
            figures = [np.mean([row["test"][name]["accuracy"] for row in own]) for name in METHODS]
            figures.append(np.mean([row["test"][name]["accuracy"] for row, name in zip(own, picks, strict=True)]))
            means.append(figures)
            names = ", ".join(f"`{name}`" for name in dict.fromkeys(picks))
            lines.append(f"| {task}, {shots} ({len(own)}) | " + " | ".join(_percent(figures)) + f" | {names} |")
        cells = [f"**{cell}**" for cell in _percent(np.mean(means, axis=0))]
        lines.append(f"| **mean, {shots}** | " + " | ".join(cells) + " | |")
    return "\n".join(lines)


def _percent(shares: Any) -> list[str]:
    return [f"{100 * share:.1f}" for share in shares]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", nargs="+", default=["demo"])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--seed", nargs="+", type=int, default=[1])
    options = parser.parse_args()
    known = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done = {(row["task"], row["shots"], row["seed"]) for row in known}
    backbone = load_backbone("tiny", precision="fp32")
    jobs = [(task, shots, seed) for seed in options.seed for shots in options.shots for task in options.task]
    for task, shots, seed in (job for job in jobs if job not in done):
        found = measure(task if task.startswith("data:") else options.tasks / task, backbone, shots, seed)
        known.append({"task": task, "shots": shots, "seed": seed} | found)
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(known[-1]) + "\n")
    print(report(known))


if __name__ == "__main__":
    main()
