"""DAPT in a fifth of the passes: the text prompt first, on features that are computed once, then both prompts.

    python -m studies.two_stage --tasks TASKS --out studies/results/two_stage.jsonl

`before` is what was the default: 200 joint steps. `now` are 200 steps of the text prompt on four views, then 32 joint
steps. The numbers of steps and views were chosen on validation images of CHOSEN, of what docs/time_to_accuracy.md
lists; all tasks were then measured on their test images. Prompts alone, and with the ensemble. Icons are seen by
`tiny`, photographs by `photo`.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from daptune.bench.plan import Experiment, MethodRow
from daptune.bench.results import Result
from studies.ensemble import difference, mean, out_of, there
from studies.runs import arguments, part, publish, run_study

TASKS = {"tiny": ("demo", "digits", "letters", "contrast"), "photo": ("clothing", "eurosat", "caltech101")}
CHOSEN = ("demo", "digits", "clothing")
SHOTS, SEEDS = (4, 16), (1, 2, 3)
KINDS = {"before": {"text_steps": 0, "steps": 200}, "now": {}}


def plan(backbone: str) -> list[Experiment]:
    rows = []
    for kind, train in KINDS.items():
        rows += [
            MethodRow("dapt", kind, train=train),
            MethodRow("dapt", f"{kind} + ensemble", train=train, ensemble="auto"),
        ]
    return [part(TASKS[backbone], rows, SHOTS, (seed,), test=True) for seed in SEEDS]


def report(rows: Sequence[Result]) -> str:
    """Markdown: by task and shots, prompts alone and with the ensemble, before and now; differences; seconds."""
    labels = ["before", "now", "before + ensemble", "now + ensemble"]
    lines = ["| task | shots | " + " | ".join(labels) + " | seconds before | now |", "|---" * 8 + "|"]
    for task in (name for names in TASKS.values() for name in names):
        for shots in SHOTS:
            figures = [mean(rows, label, task, shots) for label in labels]
            spent = [
                np.median([r.seconds for r in rows if (r.label, r.dataset, r.shots) == (kind, task, shots)] or [np.nan])
                for kind in KINDS
            ]
            cells = [f"{value:.1f}" for value in figures] + [f"{value:.0f}" for value in spent]
            lines.append(f"| {task}{'' if task in CHOSEN else ' *'} | {shots} | " + " | ".join(cells) + " |")
    lines += ["", "| now - before | " + " | ".join(f"{s} shots" for s in SHOTS) + " |", "|---|---|---|"]
    for name, chosen in (("tasks of the choice", True), ("other tasks", False)):
        own = [r for r in rows if (r.dataset in CHOSEN) is chosen]
        for extra in ("", " + ensemble"):
            cells = [difference(own, f"now{extra}", f"before{extra}", shots) for shots in SHOTS]
            lines.append(f"| {name}{extra} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--show", action="store_true", help="only what is there")
    parser.add_argument("--publish", action="store_true", help="write the results as a file")
    parser.add_argument("--backbone", choices=TASKS, help="only what it sees")
    options = parser.parse_args()
    rows = []
    for backbone in TASKS:
        own = argparse.Namespace(**vars(options) | {"out": out_of(options.out, backbone)})
        left = options.show or options.backbone not in (None, backbone)
        rows += there(own.out) if left else run_study("two_stage", plan(backbone), own, backbone=backbone)
        if options.publish:
            publish(there(own.out), own.out)
    print(report(rows))


if __name__ == "__main__":
    main()
