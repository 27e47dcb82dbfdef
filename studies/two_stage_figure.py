"""Accuracy over seconds of DAPT with its text prompt first, and of 200 joint steps: the figure of the page.

    python -m studies.two_stage_figure --tasks TASKS --out studies/results/two_stage_along.jsonl

The learned prompts alone, on validation images, one draw of the training images; seconds of one thread of the
processor, with the preparation and without the looks (studies/curve.py). Runs what is missing, and draws.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from daptune.bench.plan import Experiment, MethodRow
from daptune.bench.results import Result
from studies.ensemble import out_of, there
from studies.recipe import run_along
from studies.recipe_figure import BLUE, ORANGE
from studies.runs import arguments, part, publish, run_study
from studies.two_stage import KINDS, SHOTS, TASKS

DOCS = Path(__file__).parents[1] / "docs"
STYLES = {"before": (ORANGE, "200 joint steps"), "now": (BLUE, "text prompt first (the default)")}


def plan(backbone: str) -> list[Experiment]:
    rows = [MethodRow("dapt", kind, train=train) for kind, train in KINDS.items()]
    return [part(TASKS[backbone], rows, (shots,), (1,)) for shots in reversed(SHOTS)]


def draw(rows: Sequence[Result], out: Path) -> None:
    """A panel for each task and number of images."""
    tasks = [task for names in TASKS.values() for task in names]
    figure, panels = plt.subplots(len(SHOTS), len(tasks), figsize=(14, 4.6), layout="constrained")
    for row, shots in zip(panels, SHOTS, strict=True):
        for panel, task in zip(row, tasks, strict=True):
            for found in (r for r in rows if (r.dataset, r.shots) == (task, shots)):
                colour, label = STYLES[found.label]
                right, (images,) = found.curve["right"], found.curve["images"]
                shown = [100 * each / images for each in right]
                panel.plot(found.curve["seconds"], shown, color=colour, linewidth=1.5, label=label)
            panel.set_title(f"{task}, {shots} images", fontsize=9)
            panel.tick_params(labelsize=8)
            panel.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("validation accuracy, %", fontsize=8)
    for panel in panels[-1]:
        panel.set_xlabel("seconds", fontsize=8)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=9, frameon=False, loc="outside lower center", ncols=2)
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    parser = arguments(__doc__, processes=1)
    parser.add_argument("--show", action="store_true", help="draw what is there")
    parser.add_argument("--publish", action="store_true", help="write the results as a file")
    options = parser.parse_args()
    rows = []
    for backbone in TASKS:
        own = argparse.Namespace(**vars(options) | {"out": out_of(options.out, backbone)})
        job = {"backbone": backbone, "work": run_along}
        rows += there(own.out) if options.show else run_study("two_stage_figure", plan(backbone), own, **job)
        if options.publish:
            publish(there(own.out), own.out)
    draw(rows, DOCS / "two_stage.svg")


if __name__ == "__main__":
    plt.rcParams.update({"svg.hashsalt": "daptune", "svg.fonttype": "none"})  # the same file each time, a small one
    main()
