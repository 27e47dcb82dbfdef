"""What `--method auto` chooses, and what each candidate reaches on test images: docs/methods, "Which one to choose".

    python -m studies.choice --tasks TASKS --out studies/results/choice.jsonl --task demo clothing --shots 1 4 16

Prints the tables and runs what is missing. Methods that read CLIP's own features, on the features that `daptune.choose`
makes of them; prompts, which rarely fit into its time, are left out. The choice sees the training images alone; test
images (at most 300, drawn once) measure what it is worth. `TASKS/NAME` has train/ and test/ of class folders; a
benchmark data set is named with `data:`, and read from $DAPTUNE_DATA.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from daptune.choose import CANDIDATES, Trials
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
    """Cross-validated and test figures by method, and the choice."""
    splits = read_source(source)
    if splits.test is None:
        raise SystemExit(f"{source} has no test images")
    train = sample_fewshot(splits.train, shots, seed).train
    size = len(splits.test)
    rows = np.random.default_rng(0).choice(size, min(TESTED, size), replace=False)
    classifier, decoder = FewShotClassifier(), Decoder()
    recipes = {name: classifier.settings(name) for name in METHODS}
    found = Trials(recipes, train, backbone, seed=seed, decoder=decoder).run()
    final = OnTest(recipes, train + splits.test.subset(np.sort(rows)), backbone, seed=seed, decoder=decoder)
    final.learned = len(train)
    tested = {row.method: {"accuracy": row.accuracy, "nll": row.nll} for row in final.run().rows}
    return {"test": tested, "choice": found.choice()}


def report(results: list[dict[str, Any]]) -> str:
    """Markdown: test accuracy by number of shots, the mean over tasks, and of the choice."""
    lines = ["| task, shots | " + " | ".join(f"`{name}`" for name in METHODS) + " | chosen |"]
    lines.append("|---" * (len(METHODS) + 2) + "|")
    for shots in sorted({row["shots"] for row in results}):
        own = sorted((row for row in results if row["shots"] == shots), key=lambda row: (row["task"], row["seed"]))
        for row in own:
            cells = [f"{100 * row['test'][name]['accuracy']:.1f}" for name in METHODS]
            lines.append(f"| {row['task']}, {shots} | " + " | ".join(cells) + f" | `{row['choice']['method']}` |")
        means = [np.mean([row["test"][name]["accuracy"] for row in own]) for name in METHODS]
        chosen = np.mean([row["test"][row["choice"]["method"]]["accuracy"] for row in own])
        cells = [f"**{100 * mean:.1f}**" for mean in means]
        lines.append(f"| **mean, {shots}** | " + " | ".join(cells) + f" | **{100 * chosen:.1f}** |")
    return "\n".join(lines)


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
    jobs = [(task, shots, seed) for shots in options.shots for task in options.task for seed in options.seed]
    for task, shots, seed in (job for job in jobs if job not in done):
        source = task if task.startswith("data:") else options.tasks / task
        known.append({"task": task, "shots": shots, "seed": seed} | measure(source, backbone, shots, seed))
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(known[-1]) + "\n")
    print(report(known))


if __name__ == "__main__":
    main()
