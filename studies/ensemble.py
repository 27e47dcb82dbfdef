"""What an answer from three sources is worth: the learned prompts, hand-written prompts and the training images.

    python -m studies.ensemble --tasks TASKS --out studies/results/ensemble.jsonl

DAPT and CoOp + VPT at their defaults, each measured alone and as an ensemble (`--ensemble auto`), beside methods that
use hand-written prompts or training images alone, and Tip-Adapter-F and LP++, which use both. All see the same training
and validation images. The constants of the ensemble were chosen on the tasks of CHOSEN; the others were measured once.
Icons are seen by `tiny` and photographs by `photo`; results are kept in `ensemble_tiny` and `ensemble_photo`, and
`--publish` writes them to `ensemble_tiny.jsonl` and `ensemble_photo.jsonl`. `--show` prints what is there.

    python -m studies.ensemble --tasks TASKS --frozen

measures hand-written prompts and training images without any learned prompt, on features of the frozen backbone, in a
few minutes: the table of docs/training.md.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from daptune import load_backbone
from daptune.bench.plan import Experiment, MethodRow
from daptune.bench.results import Result, read_results
from daptune.methods.discriminant import Discriminant
from daptune.methods.ensemble import Seen, fit_ensemble
from daptune.metrics import paired_bootstrap
from studies.runs import arguments, part, publish, published, run_study
from studies.unknown import TEMPLATES, Task

TASKS = {"tiny": ("demo", "contrast", "digits", "letters"), "photo": ("clothing", "eurosat")}
CHOSEN = ("demo", "clothing", "eurosat")
SHOTS, SEEDS = (1, 2, 4, 8, 16), (1, 2, 3, 4, 5)
SOURCES = ("zero_shot", "prototype", "dapt")
OURS = "dapt + ensemble"
QUICK = ("zero_shot", "prototype", "tip_adapter", "tip_adapter_f", "lp_pp", "linear_probe")
WITHOUT_DISPERSION = "coop_vpt"  # DAPT without its two losses
FEWER = (1, 4, 16), (1, 2, 3)  # shots and seeds of it


def plan(backbone: str) -> list[Experiment]:
    """The parts in the order of their use: three seeds, two more seeds, and what dispersion is compared with."""
    quick = [MethodRow(name, name) for name in QUICK]
    parts = [part(TASKS[backbone], [*quick, *pair("dapt")], SHOTS, s, test=True) for s in (SEEDS[:3], SEEDS[3:])]
    return [*parts, part(TASKS[backbone], pair(WITHOUT_DISPERSION), *FEWER, test=True)]


def pair(method: str) -> list[MethodRow]:
    return [MethodRow(method, method), MethodRow(method, f"{method} + ensemble", ensemble="auto")]


def out_of(out: Path, backbone: str) -> Path:
    return out.with_name(f"{out.stem}_{backbone}.jsonl")


def there(out: Path) -> list[Result]:
    """Published results, and those of the folder beside them."""
    run = out.with_suffix("")
    found = read_results(run) if run.exists() else []
    return [*published(out), *(replace(row, dataset=Path(row.dataset).name) for row in found if row.done)]


def mean(rows: Sequence[Result], label: str, task: str, shots: int, figure: str = "accuracy") -> float:
    """Mean over seeds of a figure on test images, accuracy in per cent; NaN without results."""
    found = [getattr(r, figure)["test"] for r in rows if (r.label, r.dataset, r.shots) == (label, task, shots)]
    return float(np.mean(found)) * (100 if figure in ("accuracy", "ece") else 1) if found else float("nan")


def tasks_of(rows: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(r.dataset for r in rows))


def accuracy_table(rows: Sequence[Result]) -> list[str]:
    """By task and shots: the sources alone, the ensemble, and methods that combine text and images otherwise."""
    labels = (*SOURCES, OURS, "coop_vpt", "coop_vpt + ensemble", *QUICK[2:])
    lines = ["| task | shots | " + " | ".join(labels) + " |", "|---" * (len(labels) + 2) + "|"]
    for task in tasks_of(rows):
        for shots in SHOTS:
            figures = [mean(rows, label, task, shots) for label in labels]
            lines.append(f"| {task} | {shots} | " + " | ".join(f"{value:.1f}" for value in figures) + " |")
    return lines


def misses(rows: Sequence[Result]) -> list[str]:
    """Where the ensemble is below zero-shot, or more than a point below the best single source."""
    found = []
    for task in tasks_of(rows):
        for shots in SHOTS:
            ours, *alone = (mean(rows, label, task, shots) for label in (OURS, *SOURCES))
            if ours < alone[0] or ours < max(alone) - 1:
                best = SOURCES[int(np.argmax(alone))]
                found.append(f"{task}, {shots} shots: {ours:.1f}; {best} {max(alone):.1f}")
    return found


def difference(rows: Sequence[Result], label: str, other: str, shots: int) -> str:
    """Mean difference over tasks and seeds in points, with the 95 % interval of a paired bootstrap over images."""
    pairs = []
    for task in tasks_of(rows):
        hits = {}
        for name in (label, other):
            own = {r.seed: r.correct["test"] for r in rows if (r.label, r.dataset, r.shots) == (name, task, shots)}
            hits[name] = own
        seeds = sorted(hits[label].keys() & hits[other].keys())
        if seeds:
            each = [np.mean([[bit == "1" for bit in hits[name][s]] for s in seeds], axis=0) for name in (other, label)]
            pairs.append((each[0], each[1]))
    if not pairs:
        return "-"
    d = paired_bootstrap(pairs)
    return f"{100 * d.difference:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f})"


def report(rows: Sequence[Result]) -> str:
    """Markdown: accuracies, misses, differences, calibration."""
    lines = [*accuracy_table(rows), "\nMisses:\n", *(f"- {line}" for line in misses(rows) or ["none"])]
    pairs = [(OURS, name) for name in (*SOURCES, *QUICK[2:])] + [(OURS, "coop_vpt + ensemble"), ("dapt", "coop_vpt")]
    lines += ["\n| difference | " + " | ".join(f"{s} shots" for s in SHOTS) + " |", "|---" * (len(SHOTS) + 1) + "|"]
    lines += [f"| {a} - {b} | " + " | ".join(difference(rows, a, b, s) for s in SHOTS) + " |" for a, b in pairs]
    lines += ["\n| shots | label | NLL, nats | ECE, points |", "|---|---|---|---|"]
    for shots in SHOTS:
        for label in ("zero_shot", "dapt", OURS, "tip_adapter_f", "linear_probe"):
            nll, ece = (
                np.nanmean([mean(rows, label, task, shots, figure) for task in tasks_of(rows)])
                for figure in ("nll", "ece")
            )
            lines.append(f"| {shots} | {label} | {nll:.2f} | {ece:.1f} |")
    return "\n".join(lines)


def frozen(root: Path) -> str:
    """Markdown: zero-shot, nearest class mean, and both as an ensemble, without learned prompts; means over seeds."""
    lines = ["| task | zero-shot | " + " | ".join(f"{s} shots" for s in SHOTS) + " |", "|---" * (len(SHOTS) + 2) + "|"]
    for name, backbone in ((name, load_backbone(b, precision="fp32")) for b, names in TASKS.items() for name in names):
        task = Task(root / name, backbone)
        w0, cells = task.words(task.names), []
        for shots in SHOTS:
            found = []
            for seed in SEEDS:
                z, labels = task.support(shots, seed)
                ensemble = fit_ensemble(Seen(z, np.zeros((len(z), len(w0))), labels), w0, templates=TEMPLATES)
                test = torch.from_numpy(task.z).float()
                scores = ensemble(test, torch.zeros(len(test), len(w0))).numpy()
                means = Discriminant.fit(z, labels, len(w0)).directions
                found.append([_right(scores, task), _right(task.z @ means.T, task)])
            ours, prototype = 100 * np.mean(found, axis=0)
            cells.append(f"{prototype:.1f} -> {ours:.1f}")
        lines.append(f"| {name} | {100 * _right(task.z @ w0.T, task):.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _right(scores: NDArray[np.floating], task: Task) -> float:
    return float((scores.argmax(axis=1) == task.test.labels).mean())


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--show", action="store_true", help="only what is there")
    parser.add_argument("--publish", action="store_true", help="write the results as a file")
    parser.add_argument("--frozen", action="store_true", help="only the sources without learning")
    options = parser.parse_args()
    if options.frozen:
        print(frozen(options.tasks))
        return
    rows = []
    for backbone in TASKS:
        own = argparse.Namespace(**vars(options) | {"out": out_of(options.out, backbone)})
        rows += there(own.out) if options.show else run_study("ensemble", plan(backbone), own, backbone=backbone)
        if options.publish:
            publish(there(own.out), own.out)
    print(report(rows))


if __name__ == "__main__":
    main()
