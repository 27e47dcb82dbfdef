"""The figure of docs/ensemble.md, from the committed results: `python -m studies.ensemble_figure`; needs matplotlib."""

from pathlib import Path

import matplotlib.pyplot as plt

from studies.ensemble import OURS, SHOTS, TASKS, mean, out_of, tasks_of
from studies.runs import published

ROOT = Path(__file__).parents[1]
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#e69f00", "#009e73", "#cc79a7"  # Okabe and Ito's, for colour-blind readers too
DRAWN = {  # label -> name, colour, marker, line width
    OURS: ("DAPT with the ensemble (the default)", BLUE, "o", 2.2),
    "dapt": ("DAPT, learned prompts alone", ORANGE, "s", 1.2),
    "prototype": ("training images alone (class means)", GREEN, "^", 1.2),
    "tip_adapter_f": ("Tip-Adapter-F", PINK, "D", 1.2),
}


def main() -> None:
    rows = [row for backbone in TASKS for row in published(out_of(ROOT / "studies/results/ensemble.jsonl", backbone))]
    names = tasks_of(rows)
    figure, panels = plt.subplots(2, 3, figsize=(10, 5.6), layout="constrained")
    for panel, task in zip(panels.flat, names, strict=True):
        zero = mean(rows, "zero_shot", task, SHOTS[0])
        panel.axhline(zero, color="0.4", linewidth=1.2, linestyle="--", label="zero-shot CLIP")
        for label, (name, colour, marker, width) in DRAWN.items():
            heights = [mean(rows, label, task, shots) for shots in SHOTS]
            panel.plot(SHOTS, heights, marker, linestyle="-", color=colour, linewidth=width, markersize=4, label=name)
        panel.set_xscale("log", base=2)
        panel.set_xticks(SHOTS, labels=[str(s) for s in SHOTS])
        panel.set_title(f"{task} ({next(b for b, tasks in TASKS.items() if task in tasks)})", fontsize=10)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[-1]:
        panel.set_xlabel("training images per class", fontsize=9)
    for row in panels:
        row[0].set_ylabel("test accuracy, %", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, frameon=False, loc="outside lower center", ncols=3)
    figure.savefig(ROOT / "docs/ensemble.svg", metadata={"Date": None})


if __name__ == "__main__":
    plt.rcParams.update({"svg.hashsalt": "daptune", "svg.fonttype": "none"})  # the same file each time, a small one
    main()
