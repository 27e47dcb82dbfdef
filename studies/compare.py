"""Every method with its defaults on one task: accuracy on test images and unseen styles, seconds, learned numbers.

    python -m studies.compare --tasks TASKS --out studies/results/compare.jsonl
    python -m studies.compare --tasks TASKS --out studies/results/digits.jsonl --task digits --shots 16

Nothing is chosen here: options and training are those of `daptune fit` without flags, so that test images may be
measured. `--train '{"lr": 0.03, "steps": 300}'` takes others, and then measures validation images alone. All runs are
in float32 and on one thread; seconds are those of the fastest seed, for other work may stand beside the others.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from daptune import METHODS
from studies.dispersion import DOMAINS, TASK, hits
from studies.job import Job, mean_and_deviation, run
from studies.runner import run_missing

SHOTS, SEEDS = (1, 4, 16), (1, 2, 3)


def jobs(task: str, methods: list[str], shots: list[int], train: dict[str, Any]) -> list[Job]:
    """All runs, the fewest shots first."""
    measured = {"score": "val"} if train else {"score": "test", "domains": DOMAINS if task == TASK else ()}
    return [
        Job(task, name, count, seed, train=train, label=name, **measured)  # type: ignore[arg-type]
        for count in sorted(shots)
        for name in methods
        for seed in SEEDS
    ]


def report(rows: list[dict[str, Any]], shots: list[int]) -> str:
    """Markdown, a line a method, best mean on test images with the most shots first."""
    most = max(shots)
    splits = {"test": ("test",)} if rows[0]["score"] == "test" else {}
    splits |= {"validation": ("val",)} | ({"unseen styles": DOMAINS} if rows[0]["domains"] else {})
    columns = [(title, own, count) for title, own in splits.items() for count in (shots if title == "test" else [most])]
    first = columns[0][1]
    heads = ["method", "learned", *(f"{title}, {count} shots" for title, _, count in columns), f"seconds, {most} shots"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in sorted({row["label"] for row in rows}, key=lambda n: -hits(rows, n, most, first).mean()):
        own = [row for row in rows if (row["label"], row["shots"]) == (name, most)]
        cells = [mean_and_deviation(list(hits(rows, name, count, parts).mean(1))) for _, parts, count in columns]
        cells.append(f"{min(row['seconds'] for row in own):.1f}")
        lines.append(f"| `{name}` | {own[0]['learned']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True, help="folder with a folder a task")
    parser.add_argument("--out", type=Path, required=True, help="results, one JSON line a run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--task", default=TASK)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--shots", nargs="+", type=int, default=list(SHOTS))
    parser.add_argument("--train", type=json.loads, default={}, help="fields of TrainConfig as JSON, and steps")
    options = parser.parse_args()
    wanted = jobs(options.task, options.methods, options.shots, options.train)
    rows = run_missing(wanted, options.out, options.tasks, options.processes, partial(run, precision="fp32"))
    print(report(rows, options.shots))


if __name__ == "__main__":
    main()
