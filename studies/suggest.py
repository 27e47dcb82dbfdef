"""Is it worth labelling the images that `daptune suggest` names, rather than others?

    python -m studies.suggest --tasks TASKS --out studies/results/suggest.jsonl          # runs what is missing
    python -m studies.suggest --out studies/results/suggest.jsonl --figure docs/suggest.svg

A run starts from one labelled image of each class and adds a batch of STEP labels at a time, chosen from the training
and validation images by a rule. Accuracy is measured on test images after each batch. The classifier is the ensemble
without learned prompts (hand-written prompts and class statistics), on features of the frozen backbone, so a step takes
no training. The rule was chosen on the tasks of CHOSEN; OTHERS were measured once.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from daptune import load_backbone
from daptune.bench.measure import evenly
from daptune.calibration import scaled
from daptune.data.sources import read_source
from daptune.files import json_lines
from daptune.labelling import CANDIDATES, MOST_CANDIDATES, choose, margins
from daptune.methods.ensemble import Seen, fit_ensemble
from studies.unknown import TEMPLATES, Task

CHOSEN, OTHERS = ("letters", "demo", "eurosat"), ("digits", "clothing")
STEP = {"letters": 26, "demo": 32, "eurosat": 10, "digits": 10, "clothing": 10}  # one of each class on average
STEPS, SEEDS = 8, tuple(range(1, 11))
MOST = 4000  # images to choose from, evenly spaced
Floats = NDArray[np.float64]
Rule = Callable[[Floats, Floats, int, np.random.Generator], Sequence[int]]


def ours(z: Floats, p: Floats, n: int, rng: np.random.Generator) -> list[int]:
    """`daptune.suggest` for features and probabilities that are there."""
    margin = margins(p)
    kept = np.sort(np.argsort(margin, kind="stable")[: max(n, min(CANDIDATES * n, MOST_CANDIDATES))])
    return [int(kept[row]) for row in choose(z[kept], margin[kept], n)]


RULES: dict[str, Rule] = {
    "random": lambda z, p, n, rng: rng.permutation(len(z))[:n].tolist(),
    "smallest margin": lambda z, p, n, rng: np.argsort(margins(p), kind="stable")[:n].tolist(),
    "coverage alone": lambda z, p, n, rng: choose(z, np.zeros(len(z)), n),
    "suggest": ours,
}


class Pool:
    """A task's images to choose from, its test images and class names, as features."""

    def __init__(self, folder: Path) -> None:
        task, splits = Task(folder, load_backbone("tiny", precision="fp32")), read_source(folder)
        table = evenly(splits.train if splits.val is None else splits.train + splits.val, MOST)
        self.z, self.labels = task.features(table.images), table.labels
        self.test, self.truth, self.w0 = task.z, task.test.labels, task.words(task.names)

    def probabilities(self, labelled: NDArray[np.int64], z: Floats) -> Floats:
        """Of images (n, D), by the labelled images of the pool."""
        rows, classes = self.z[labelled], len(self.w0)
        support = Seen(rows, np.zeros((len(rows), classes)), self.labels[labelled])
        ensemble = fit_ensemble(support, self.w0, templates=TEMPLATES)
        return scaled(ensemble(torch.from_numpy(z).float(), torch.zeros(len(z), classes)).numpy(), 1.0)

    def curve(self, rule: Rule, step: int, seed: int) -> list[float]:
        """Accuracy on the test images at the start, and after each step."""
        rng = np.random.default_rng(seed)
        members = [rng.permutation(np.flatnonzero(self.labels == c))[:1] for c in range(len(self.w0))]
        labelled, found = np.concatenate(members), []
        for _ in range(STEPS + 1):
            found.append(float((self.probabilities(labelled, self.test).argmax(axis=1) == self.truth).mean()))
            left = np.setdiff1d(np.arange(len(self.z)), labelled)
            rows = rule(self.z[left], self.probabilities(labelled, self.z[left]), step, rng)
            labelled = np.concatenate([labelled, left[rows]])
        return found


def run(root: Path, out: Path, tasks: Sequence[str]) -> None:
    """Append a line for each task, rule and seed that the file lacks."""
    done = {(row["task"], row["rule"], row["seed"]) for row in read(out)}
    for name in tasks:
        wanted = [(rule, seed) for rule in RULES for seed in SEEDS if (name, rule, seed) not in done]
        pool = Pool(root / name) if wanted else None
        for rule, seed in wanted if pool is not None else []:
            row = {"task": name, "rule": rule, "seed": seed, "step": STEP[name]}
            row["accuracy"] = [round(value, 4) for value in pool.curve(RULES[rule], STEP[name], seed)]  # type: ignore[union-attr]
            with out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")


def read(out: Path) -> list[dict[str, Any]]:
    text = out.read_text("utf-8") if out.exists() else ""
    return [row for _, row in json_lines(text) if not isinstance(row, ValueError)]


def curves(rows: Sequence[dict[str, Any]], task: str, rule: str) -> Floats:
    """Accuracies in per cent, (seeds, steps + 1), in the order of the seeds."""
    own = sorted((row for row in rows if (row["task"], row["rule"]) == (task, rule)), key=lambda row: row["seed"])
    return 100 * np.array([row["accuracy"] for row in own])


def report(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: accuracy after 1, 2, 4 and 8 steps, and the mean difference from random over all steps and seeds."""
    shown = (1, 2, 4, STEPS)
    head = " | ".join(f"{s} step{'s' if s > 1 else ''}" for s in shown)
    lines = [f"| task | rule | start | {head} | less random, mean ± sd over seeds |", "|---" * (len(shown) + 4) + "|"]
    for task in [name for name in CHOSEN + OTHERS if len(curves(rows, name, "suggest"))]:
        for rule in RULES:
            found = curves(rows, task, rule)
            gain = (found - curves(rows, task, "random"))[:, 1:].mean(axis=1)
            cells = [f"{found[:, place].mean():.1f}" for place in (0, *shown)]
            text = "" if rule == "random" else f"{gain.mean():+.1f} ± {gain.std(ddof=1):.1f}"
            lines.append(f"| {task} | {rule} | " + " | ".join(cells) + f" | {text} |")
    return lines


def figure(rows: Sequence[dict[str, Any]], place: Path) -> None:
    """Accuracy by labelled images on the tasks of OTHERS: means, and bands of the standard error over seeds."""
    import matplotlib.pyplot as plt

    from studies.figure import COLOURS, MARKERS

    plt.rcParams.update({"svg.hashsalt": "daptune", "svg.fonttype": "none"})
    drawing, panels = plt.subplots(1, len(OTHERS), figsize=(8, 3.6), layout="constrained")
    for panel, task in zip(panels, OTHERS, strict=True):
        for rule, colour, marker in zip(RULES, COLOURS, MARKERS, strict=True):
            found = curves(rows, task, rule)
            labels = STEP[task] * np.arange(1, found.shape[1] + 1)
            middle, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(len(found))
            panel.plot(labels, middle, f"-{marker}", color=colour, markersize=4, label=rule)
            panel.fill_between(labels, middle - error, middle + error, color=colour, alpha=0.15, linewidth=0)
        panel.set_title(task, fontsize=10)
        panel.set_xlabel("labelled images", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy on test images, %", fontsize=9)
    names = panels[0].get_legend_handles_labels()
    drawing.legend(*names, fontsize=9, frameon=False, loc="outside lower center", ncols=4)
    drawing.savefig(place, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, help="folder with a folder a task; without it, only what is there")
    parser.add_argument("--only", nargs="+", default=CHOSEN + OTHERS, help="some of the tasks")
    parser.add_argument("--out", type=Path, required=True, help="results, a line a run")
    parser.add_argument("--figure", type=Path, help="also draw the figure")
    options = parser.parse_args()
    if options.tasks is not None:
        run(options.tasks, options.out, options.only)
    rows = read(options.out)
    print("\n".join(report(rows)))
    if options.figure is not None:
        figure(rows, options.figure)


if __name__ == "__main__":
    main()
