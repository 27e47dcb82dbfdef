"""The figure of docs/time_to_accuracy.md, from the committed results: `python -m studies.recipe_figure`."""

from pathlib import Path

import matplotlib.pyplot as plt

from studies.defaults import TASKS
from studies.recipe_table import best_recipe, curves
from studies.runs import published

ROOT = Path(__file__).parents[1]
ROWS = (("coop", 4), ("dapt", 4))
BLUE, GREEN, ORANGE = "#0072b2", "#009e73", "#e69f00"  # Okabe and Ito's, told apart by colour-blind readers too
OURS = {"default": (BLUE, "the default"), "words, a fifth, lr 0.03": (GREEN, "--preset fast")}


def main() -> None:
    found = curves(published(ROOT / "studies/results/recipe.jsonl"))
    figure, panels = plt.subplots(len(ROWS), len(TASKS), figsize=(11, 5.4), layout="constrained")
    for row, (method, shots) in zip(panels, ROWS, strict=True):
        for panel, task in zip(row, TASKS, strict=True):
            own = found[shots, method, task]
            recipe = own[best_recipe(own)]
            drawn = [(recipe, ORANGE, "the recipe at its best rate"), *((own[k], *style) for k, style in OURS.items())]
            for curve, colour, label in drawn:
                panel.plot(curve["steps"][1:], curve["accuracy"][1:], color=colour, linewidth=1.5, label=label)
            panel.axhline(recipe["accuracy"][-1], color=ORANGE, linewidth=0.8, linestyle=":", label="where it ends")
            panel.axvline(recipe["steps"][-1] / 5, color="0.5", linewidth=0.8, linestyle="--", label="a fifth of it")
            panel.set_xscale("log")
            panel.set_title(f"{method}, {task}, {shots} shots", fontsize=9)
            panel.tick_params(labelsize=8)
            panel.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("validation accuracy, %", fontsize=8)
    for panel in panels[-1]:
        panel.set_xlabel("steps", fontsize=8)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, frameon=False, loc="outside lower center", ncols=5)
    figure.savefig(ROOT / "docs/time_to_accuracy.svg", metadata={"Date": None})


if __name__ == "__main__":
    plt.rcParams.update({"svg.hashsalt": "daptune", "svg.fonttype": "none"})  # the same file each time, a small one
    main()
