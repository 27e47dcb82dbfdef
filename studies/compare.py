"""Every method with its defaults on one task: accuracy on test images and unseen styles, seconds, learned numbers.

    python -m studies.compare --tasks TASKS --out studies/results/compare.jsonl
    python -m studies.compare --tasks TASKS --out studies/results/digits.jsonl --task digits --shots 16

Nothing is chosen here: options and training are those of `daptune fit` without flags, so that test images may be
measured. `--train '{"lr": 0.03, "steps": 300}'` takes others, and then measures validation images alone. All runs are
in float32 and on one thread; seconds are those of the fastest seed, for other work may stand beside the others.
"""

import argparse
import json

from daptune import METHODS
from daptune.bench.plan import Experiment, MethodRow
from daptune.bench.results import Result
from studies.dispersion import DOMAINS, TASK, hits
from studies.runs import arguments, mean_and_deviation, part, run_study

SHOTS, SEEDS = (1, 4, 16), (1, 2, 3)


def plan(options: argparse.Namespace) -> list[Experiment]:
    """The fewest shots first."""
    rows = [MethodRow(name, name, train=options.train) for name in options.methods]
    styles = DOMAINS if options.task == TASK and not options.train else ()
    return [part([options.task], rows, sorted(options.shots), SEEDS, test=not options.train, styles=styles)]


def report(rows: list[Result], shots: list[int]) -> str:
    """Markdown, a line a method, best mean on test images with the most shots first."""
    most = max(shots)
    splits = {"test": ("test",)} if "test" in rows[0].accuracy else {}
    splits |= {"validation": ("val",)} | ({"unseen styles": DOMAINS} if rows[0].targets else {})
    columns = [(title, own, count) for title, own in splits.items() for count in (shots if title == "test" else [most])]
    first = columns[0][1]
    heads = ["method", "learned", *(f"{title}, {count} shots" for title, _, count in columns), f"seconds, {most} shots"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in sorted(sorted({row.label for row in rows}), key=lambda n: -hits(rows, n, most, first).mean()):
        own = [row for row in rows if (row.label, row.shots) == (name, most)]
        cells = [mean_and_deviation(list(hits(rows, name, count, parts).mean(1))) for _, parts, count in columns]
        cells.append(f"{min(row.seconds for row in own):.1f}")
        lines.append(f"| `{name}` | {own[0].learned:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", default=TASK)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--shots", nargs="+", type=int, default=list(SHOTS))
    parser.add_argument("--train", type=json.loads, default={}, help="fields of TrainConfig as JSON, and steps")
    options = parser.parse_args()
    print(report(run_study("compare", plan(options), options, precision="fp32"), options.shots))


if __name__ == "__main__":
    main()
