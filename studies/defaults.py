"""The defaults study: which crops, rate, length, weights and first context serve data of which nothing is known.

    python -m studies.defaults crops --tasks TASKS --out studies/results/crops.jsonl
    python -m studies.defaults search --tasks TASKS --out studies/results/defaults.jsonl

`crops` varies the augmentation alone. `search` gives each method the same number of configurations, drawn from the same
ranges by the same seed. Each run is trained on every task, at 4 and 16 shots, and measured on validation images alone.
A configuration's score is its mean gain over zero-shot across tasks and shots. Leaving each task out in turn shows
whether the choice would have been right for a task that did not take part in it.
"""

import argparse
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from studies.job import Job
from studies.runner import run_missing

TASKS = ("demo", "contrast", "digits", "letters")
SHOTS = (4, 16)
CROPS = ((0.08, 0.5), (0.5, 0.5), (0.5, 0.0), (1.0, 0.5), (1.0, 0.0))  # min_crop, flip
RANGES: dict[str, list[Any]] = {
    "lr": [0.003, 0.01, 0.03],
    "steps": [100, 300],
    "text_tokens": [4, 16],
    "vision_tokens": [4, 16],
    "vision_depth": [1, 0],
    "context_init": ["", "a photo of a"],
    "inter_weight": [0.01, 0.1, 1.0, 10.0],
    "intra_weight": [0.1, 1.0, 10.0, 100.0],
}
WORDS, VISION = ("text_tokens", "context_init"), ("vision_tokens", "vision_depth")
METHODS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "coop": ("coop", {}, WORDS),
    "vpt": ("vpt", {}, VISION),
    "coop_vpt": ("coop_vpt", {}, (*WORDS, *VISION)),
    "+inter": ("dapt", {"intra_weight": 0.0}, (*WORDS, *VISION, "inter_weight")),
    "+intra": ("dapt", {"inter_weight": 0.0}, (*WORDS, *VISION, "intra_weight")),
    "dapt": ("dapt", {}, (*WORDS, *VISION, "inter_weight", "intra_weight")),
}


def configurations(label: str, budget: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """`budget` draws of (method options, training options) for a row of METHODS."""
    _, fixed, searched = METHODS[label]
    stream = random.Random(f"defaults {label}")
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    while len(found) < budget:
        options = {**fixed, **{name: stream.choice(RANGES[name]) for name in searched}}
        train = {name: stream.choice(RANGES[name]) for name in ("lr", "steps")}
        if (options, train) not in found:
            found.append((options, train))
    return found


def crop_configurations() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The augmentations, with everything else as it is by default."""
    return [({}, {"lr": 0.01, "steps": 200, "min_crop": share, "flip": flip}) for share, flip in CROPS]


def jobs(part: str, budget: int, seeds: int, tasks: tuple[str, ...] = TASKS) -> list[Job]:
    """All runs of a part, zero-shot among them."""
    found = [Job(task, "zero_shot", shots, 1) for task in tasks for shots in SHOTS]
    for label in ("coop", "coop_vpt") if part == "crops" else METHODS:
        for options, train in crop_configurations() if part == "crops" else configurations(label, budget):
            found += [
                Job(task, METHODS[label][0], shots, seed, options, train, label)
                for task in tasks
                for shots in SHOTS
                for seed in range(1, seeds + 1)
            ]
    return found


def gains(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[tuple[str, int], float]]]:
    """label -> configuration (as text) -> (task, shots) -> gain over zero-shot, mean over seeds."""
    zero = {(r["task"], r["shots"]): r["accuracy"]["val"] for r in rows if r["method"] == "zero_shot"}
    found: dict[str, dict[str, dict[tuple[str, int], list[float]]]] = defaultdict(lambda: defaultdict(dict))
    for r in rows:
        if r["method"] != "zero_shot":
            where = (r["task"], r["shots"])
            name = " ".join(f"{k}={v}" for k, v in {**r["train"], **r["options"]}.items())
            found[r["label"]][name].setdefault(where, []).append(r["accuracy"]["val"] - zero[where])
    return {
        label: {name: {w: float(np.mean(v)) for w, v in cells.items()} for name, cells in configs.items()}
        for label, configs in found.items()
    }


def report(rows: list[dict[str, Any]], tasks: tuple[str, ...] = TASKS) -> str:
    """Markdown: the best configurations of each method, and what leaving a task out would have chosen."""
    lines = []
    for label, configs in gains(rows).items():
        full = {name: cells for name, cells in configs.items() if len(cells) == len(tasks) * len(SHOTS)}
        ranked = sorted(full, key=lambda name: -np.mean(list(full[name].values())))
        lines += [f"\n### {label}", "", "| configuration | mean gain | " + " | ".join(tasks) + " |"]
        lines += ["|---|---|" + "---|" * len(tasks)]
        for name in ranked[:8]:
            by_task = [100 * np.mean([g for (t, _), g in full[name].items() if t == task]) for task in tasks]
            mean = 100 * np.mean(list(full[name].values()))
            lines.append(f"| {name} | {mean:+.1f} | " + " | ".join(f"{g:+.1f}" for g in by_task) + " |")
        for task in tasks:
            others = max(full, key=lambda n: np.mean([g for (t, _), g in full[n].items() if t != task]))
            own = {n: np.mean([g for (t, _), g in full[n].items() if t == task]) for n in full}
            lines.append(
                f"\n{task}, chosen on the other tasks: {100 * own[others]:+.1f}; "
                f"best of all on it: {100 * max(own.values()):+.1f}."
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("crops", "search"))
    parser.add_argument("--tasks", type=Path, required=True, help="folder with a folder a task")
    parser.add_argument("--out", type=Path, required=True, help="results, one JSON line a run")
    parser.add_argument("--budget", type=int, default=8, help="configurations a method")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    rows = run_missing(jobs(options.part, options.budget, options.seeds), options.out, options.tasks, options.processes)
    print(report(rows))


if __name__ == "__main__":
    main()
