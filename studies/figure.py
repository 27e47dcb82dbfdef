"""The figure of docs/defaults.md, from the committed results: `python -m studies.figure`; needs matplotlib."""

from pathlib import Path

import matplotlib.pyplot as plt

from studies.defaults import METHODS, TASKS
from studies.gains import gains, mean
from studies.runs import published

ROOT = Path(__file__).parents[1]
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")  # Okabe and Ito's, told apart by colour-blind readers too
MARKERS = "os^D"


def main() -> None:
    found = gains(published(ROOT / "studies/results/defaults.jsonl"))
    figure, panels = plt.subplots(1, len(METHODS), sharey=True, figsize=(11, 3.6), layout="constrained")
    for panel, label in zip(panels, METHODS, strict=True):
        ranked = sorted(found[label].values(), key=mean, reverse=True)
        for task, colour, marker in zip(TASKS, COLOURS, MARKERS, strict=True):
            heights = [mean(cells, task) for cells in ranked]
            panel.plot(range(1, len(ranked) + 1), heights, marker, color=colour, markersize=5, label=task)
        panel.axhline(0, color="0.6", linewidth=1)
        panel.set_title(label, fontsize=10)
        panel.set_xlabel("configuration, best first", fontsize=8)
        panel.set_xticks(range(1, len(ranked) + 1))
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("points above zero-shot, validation")
    names = panels[0].get_legend_handles_labels()
    figure.legend(*names, fontsize=9, frameon=False, loc="outside lower center", ncols=4)
    figure.savefig(ROOT / "docs/defaults.svg", metadata={"Date": None})


if __name__ == "__main__":
    plt.rcParams.update({"svg.hashsalt": "daptune", "svg.fonttype": "none"})  # the same file each time, a small one
    main()
