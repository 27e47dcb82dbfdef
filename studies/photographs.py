"""The paper's experiments on photographs: the tables and figure of docs/photographs.md.

daptune bench photographs.toml --data-root DATA --out RUN   # the plan of the page
python -m studies.photographs --run RUN                     # publish what is there, print the tables, draw the figure
python -m studies.photographs --paper-run RUN               # and of the same plan with preset = "paper"
python -m studies.photographs                               # the same from what is published
python -m studies.photographs --restore RUN                 # go on with `daptune bench` where the published end
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from daptune.bench.results import RESULTS, Result, read_results
from daptune.files import json_line
from daptune.metrics import paired_bootstrap
from studies.runs import publish, published

ROOT = Path(__file__).parents[1]
OUT = ROOT / "studies/results/photographs.jsonl"
PAPER = ROOT / "studies/results/photographs_paper.jsonl"
TITLES = {
    "caltech101": "Caltech101", "oxford_flowers": "Flowers102", "eurosat": "EuroSAT", "dtd10": "DTD, 10 classes",
    "stanford_cars": "Stanford Cars, validation", "clothing": "Clothing",
}  # fmt: skip
OURS, DAPT, BASE = "dapt, ensemble", "dapt", "coop_vpt"
LABELS = ("zero_shot", "coop", "vpt", BASE, DAPT, OURS, "prototype", "tip_adapter_f", "lp_pp", "linear_probe")
ABLATION = (BASE, "+inter", "+intra", DAPT)
SHOTS = (1, 2, 4, 8, 16)
SEED = 1
"""Of the draw of training images that is shown where it is not finished."""
DRAWN = {  # label -> colour, marker; Okabe and Ito's colours, for colour-blind readers too
    OURS: ("#0072b2", "o"), DAPT: ("#e69f00", "s"), BASE: ("#d55e00", "x"), "coop": ("#56b4e9", "v"),
    "vpt": ("#cc79a7", "D"), "linear_probe": ("#009e73", "^"),
}  # fmt: skip


def hits(rows: Sequence[Result], label: str, task: str, shots: int, kind: str = "fewshot") -> np.ndarray | None:
    """Which of n images are right, (n,), a mean over seeds: test images, or validation images without others."""
    found = [
        r.correct.get("test", r.correct["val"])
        for r in rows
        if (r.label, r.dataset, r.shots, r.experiment) == (label, task, shots, kind)
    ]
    return np.mean([[bit == "1" for bit in each] for each in found], axis=0) if found else None


def whole(rows: Sequence[Result]) -> list[Result]:
    """Without seeds that only some methods have been run with, of a set, number of images and kind of experiment."""
    labels, own = defaultdict(set), defaultdict(set)
    for r in rows:
        group = r.dataset, r.shots, r.experiment
        labels[group].add(r.label)
        own[group, r.seed].add(r.label)
    groups = [(r, (r.dataset, r.shots, r.experiment)) for r in rows]
    return [r for r, group in groups if r.seed == SEED or own[group, r.seed] == labels[group]]


def accuracy(rows: Sequence[Result], label: str, task: str, shots: int, kind: str = "fewshot") -> str:
    found = hits(rows, label, task, shots, kind)
    return "–" if found is None else f"{100 * found.mean():.1f}"


def tasks_of(rows: Sequence[Result]) -> list[str]:
    return [name for name in TITLES if any(row.dataset == name for row in rows)]


def difference(rows: Sequence[Result], label: str, other: str, shots: int, tasks: Sequence[str], kind: str) -> str:
    """Mean over the sets that have both, with the 95 % interval of a paired bootstrap over images; and their number."""
    found = [[hits(rows, name, task, shots, kind) for name in (other, label)] for task in tasks]
    pairs = [(a, b) for a, b in found if a is not None and b is not None]
    if not pairs:
        return "–"
    d = paired_bootstrap(pairs)
    of = f", {len(pairs)} sets" if len(tasks) > 1 else ""
    return f"{100 * d.difference:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f}{of})"


def report(rows: Sequence[Result]) -> str:
    """Markdown: accuracy by set, method and shots; differences of DAPT; the ablation."""
    tasks = tasks_of(rows)
    head = " | ".join(f"{shots}" for shots in SHOTS)
    lines = [f"| set | method | {head} |", "|---" * (len(SHOTS) + 2) + "|"]
    for task in tasks:
        for label in LABELS:
            cells = [accuracy(rows, label, task, shots) for shots in SHOTS]
            if set(cells) != {"–"}:
                lines.append(f"| {TITLES[task]} | {label} | " + " | ".join(cells) + " |")
    for ours in (DAPT, OURS):
        lines += ["", f"| {ours} less | {head} |", "|---" * (len(SHOTS) + 1) + "|"]
        for label in LABELS:
            if label != ours:
                cells = [difference(rows, ours, label, shots, tasks, "fewshot") for shots in SHOTS]
                lines.append(f"| {label} | " + " | ".join(cells) + " |")
    lines += ["", "| set | " + " | ".join(ABLATION) + " | DAPT less both prompts |", "|---" * (len(ABLATION) + 2) + "|"]
    for task in tasks:
        cells = [accuracy(rows, label, task, SHOTS[-1], "ablation") for label in ABLATION]
        if set(cells) != {"–"}:
            own = difference(rows, DAPT, BASE, SHOTS[-1], [task], "ablation")
            lines.append(f"| {TITLES[task]} | " + " | ".join(cells) + f" | {own} |")
    for label in ABLATION[1:]:
        lines.append(f"\nAll sets, {label} less {BASE}: {difference(rows, label, BASE, 16, tasks, 'ablation')}")
    return "\n".join(lines)


def beside_paper(rows: Sequence[Result], paper: Sequence[Result]) -> str:
    """Markdown: accuracy with the settings of the paper's code, our defaults in brackets; of one draw."""
    own, prompts = [row for row in rows if row.seed == SEED], ("coop", "vpt", BASE, DAPT)
    lines = ["| set | images | " + " | ".join(prompts) + " | DAPT less both prompts |", "|---" * 7 + "|"]
    for task in tasks_of(paper):
        for shots in SHOTS:
            pairs = [[accuracy(each, label, task, shots) for each in (paper, own)] for label in prompts]
            if any(first != "–" for first, _ in pairs):
                cells = [first if first == "–" else f"{first} ({second})" for first, second in pairs]
                less = difference(paper, DAPT, BASE, shots, [task], "fewshot")
                lines.append(f"| {TITLES[task]} | {shots} | " + " | ".join(cells) + f" | {less} |")
    for shots in SHOTS:
        less = difference(paper, DAPT, BASE, shots, tasks_of(paper), "fewshot")
        lines += [] if less == "–" else [f"\n{shots} images, DAPT less both prompts: {less}"]
    return "\n".join(lines)


def draw(rows: Sequence[Result]) -> None:
    """Figure 4: accuracy over images per class, a panel a set that has a curve of DAPT."""
    tasks = [task for task in tasks_of(rows) if sum(hits(rows, OURS, task, shots) is not None for shots in SHOTS) > 1]
    figure, panels = plt.subplots(2, -(-len(tasks) // 2), figsize=(10, 5.8), layout="constrained", squeeze=False)
    for panel in panels.flat[len(tasks) :]:
        panel.set_visible(False)
    for panel, task in zip(panels.flat, tasks, strict=False):
        if (zero := hits(rows, "zero_shot", task, SHOTS[-1])) is not None:
            panel.axhline(100 * zero.mean(), color="0.4", linewidth=1.2, linestyle="--", label="zero_shot")
        for label, (colour, marker) in DRAWN.items():
            there = [(shots, found.mean()) for shots in SHOTS if (found := hits(rows, label, task, shots)) is not None]
            if there:
                at, heights = np.transpose(there)
                width = 2.2 if label == OURS else 1.2
                panel.plot(
                    at, 100 * heights, marker, linestyle="-", color=colour, linewidth=width, markersize=4, label=label
                )
        panel.set_xscale("log", base=2)
        panel.set_xticks(SHOTS, labels=[str(shots) for shots in SHOTS])
        panel.set_xlim(SHOTS[0] / 1.2, SHOTS[-1] * 1.2)
        panel.set_title(TITLES[task], fontsize=10)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[:, 0]:
        panel.set_ylabel("accuracy, %", fontsize=9)
    for panel in panels[-1]:
        panel.set_xlabel("training images per class", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, frameon=False, loc="outside lower center", ncols=4)
    figure.savefig(ROOT / "docs/photographs.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of `daptune bench` to publish")
    parser.add_argument("--paper-run", type=Path, help='folder of the plan with preset = "paper" to publish')
    parser.add_argument("--restore", type=Path, help="folder for `daptune bench` to go on in")
    options = parser.parse_args()
    for run, out in ((options.run, OUT), (options.paper_run, PAPER)):
        if run is not None:
            publish(sorted(read_results(run), key=lambda row: row.key), out)
    rows = published(OUT)
    if options.restore is not None:
        options.restore.mkdir(parents=True)
        (options.restore / RESULTS).write_text("".join(json_line(row.to_json()) for row in rows), "utf-8")
        return
    shown = whole(rows)
    print(report(shown))
    print(f"\n{beside_paper(shown, published(PAPER))}")
    draw(shown)


if __name__ == "__main__":
    plt.rcParams.update({"svg.hashsalt": "daptune", "svg.fonttype": "none"})  # the same file each time, a small one
    main()
