"""The paper's question, asked on the demo: do the dispersion losses help, beside what they are added to?

    python -m studies.dispersion --tasks TASKS --search studies/results/defaults.jsonl \\
        --out studies/results/dispersion.jsonl

Every method takes the configuration that scored best on the demo's validation images among its equal number in the
search of `studies.defaults`. Then test images and unseen styles are measured: five seeds draw images and prompts,
1 to 16 shots. Since configurations differ in more than the losses, "same" rows add the losses to the baseline's own. A
difference is that of what both score on an image, mean over seeds, with the 95 % interval of a paired
bootstrap over images; how far seeds differ stands beside each accuracy.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daptune.metrics import paired_bootstrap
from studies.defaults import METHODS
from studies.gains import settings
from studies.job import Job, mean_and_deviation
from studies.runner import results, run_missing

TASK, SHOTS, SEEDS = "demo", (1, 2, 4, 8, 16), (1, 2, 3, 4, 5)
DOMAINS = ("fluent-emoji", "fluent-emoji-high-contrast", "fxemoji")
SAME = {  # the baseline's own configuration with the losses added, at the weights that did best over the whole search
    "same +inter": {"inter_weight": 0.1, "intra_weight": 0.0},
    "same +intra": {"inter_weight": 0.0, "intra_weight": 10.0},
    "same +both": {"inter_weight": 0.1, "intra_weight": 10.0},
}
ROWS = ("zero_shot", "linear_probe", *METHODS, *SAME)
PAIRS = (
    *((label, "coop_vpt") for label in SAME),
    ("+inter", "coop_vpt"),
    ("+intra", "coop_vpt"),
    ("dapt", "coop_vpt"),
    ("dapt", "coop"),
    ("dapt", "vpt"),
)


def chosen(search: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """label -> the row of the search whose options and training scored best on the demo's validation images."""
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    runs = [row for row in search if row["task"] == TASK and row["label"]]
    for row in runs:
        same = [r for r in runs if all(r[key] == row[key] for key in ("label", "options", "train"))]
        score = float(np.mean([r["accuracy"]["val"] for r in same]))
        if score > best.get(row["label"], (-1.0, {}))[0]:
            best[row["label"]] = score, row
    return {label: row for label, (_, row) in best.items()}


def jobs(search: list[dict[str, Any]], shots: list[int]) -> list[Job]:
    """All runs, zero-shot and the linear probe among them."""
    own = {label: (METHODS[label][0], row["options"], row["train"]) for label, row in chosen(search).items()}
    _, options, train = own["coop_vpt"]
    own |= {label: ("dapt", options | weights, train) for label, weights in SAME.items()}
    found = []
    for label in ROWS:
        method, options, train = own.get(label, (label, {}, {}))
        for count in shots:
            for seed in SEEDS:
                found.append(Job(TASK, method, count, seed, options, train, label, "test", DOMAINS))
    return found


def hits(rows: list[dict[str, Any]], label: str, shots: int, splits: tuple[str, ...]) -> NDArray[np.float64]:
    """(seeds, images) 1 where right, of all `splits` side by side."""
    own = sorted((r for r in rows if (r["label"], r["shots"]) == (label, shots)), key=lambda r: r["seed"])
    return np.array([[float(c) for split in splits for c in row["correct"][split]] for row in own])


def report(rows: list[dict[str, Any]], search: list[dict[str, Any]], shots: list[int]) -> str:
    """Markdown: what was chosen, accuracy by shots on test images and on unseen styles, and the differences."""
    lines = ["| method | chosen on validation images |", "|---|---|"]
    for label, row in chosen(search).items():
        lines.append(f"| {label} | {', '.join(f'{k} {v}' for k, v in settings(row).items())} |")
    for title, splits in (("Test images of the source style", ("test",)), ("Unseen styles, together", DOMAINS)):
        lines += ["", f"**{title}**, accuracy in per cent, mean and deviation over {len(SEEDS)} seeds", ""]
        lines += ["| method | " + " | ".join(f"{s} shots" for s in shots) + " |", "|---" * (len(shots) + 1) + "|"]
        for label in ROWS:
            cells = [mean_and_deviation(list(hits(rows, label, s, splits).mean(1))) for s in shots]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
        lines += ["", "| difference | " + " | ".join(f"{s} shots" for s in shots) + " |"]
        lines += ["|---" * (len(shots) + 1) + "|"]
        for first, second in PAIRS:
            shares = [[hits(rows, label, s, splits).mean(0) for label in (second, first)] for s in shots]
            spans = [paired_bootstrap(*pair) for pair in shares]
            cells = [f"{100 * d.difference:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f})" for d in spans]
            lines.append(f"| {first} - {second} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True, help="folder with a folder a task")
    parser.add_argument("--search", type=Path, required=True, help="results of `studies.defaults search`")
    parser.add_argument("--out", type=Path, required=True, help="results, one JSON line a run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--shots", nargs="+", type=int, default=list(SHOTS))
    options = parser.parse_args()
    search, shots = results(options.search), options.shots
    print(report(run_missing(jobs(search, shots), options.out, options.tasks, options.processes), search, shots))


if __name__ == "__main__":
    main()
