"""A study is a plan of `daptune bench` on folders of tasks; what was published of it is not run again.

TASKS/<task>/   train/, val/ and test/ with a folder a class; other styles of its test images are tasks beside it
NAME.jsonl      published results, a line a run: of `publish`, or as the first version of the studies wrote them
NAME/           what is run beyond them, as `daptune bench` leaves it
"""

import argparse
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from daptune.bench.executors import LocalProcesses
from daptune.bench.job import Outcome, run_jobs
from daptune.bench.plan import Experiment, Job, MethodRow, Plan
from daptune.bench.results import Result
from daptune.bench.runner import Step, run_plan
from daptune.files import json_line, json_lines

EMPTY: dict[str, Any] = {"backbone": {}, "class_names": []}
LEFT_OUT = {*EMPTY, "versions", "method_config", "train_config", "peak_bytes", "selected", "split_hash"}


def part(
    tasks: Sequence[str],
    methods: Sequence[MethodRow],
    shots: Sequence[int],
    seeds: Sequence[int],
    *,
    test: bool = False,
    styles: Sequence[str] = (),
) -> Experiment:
    """Methods x tasks x shots x seeds; test images and `styles`, folders with other images of it, only where asked."""
    kind, score = ("domain" if styles else "fewshot"), ("test" if test else "val")
    return Experiment(kind, tuple(methods), tuple(tasks), tuple(shots), tuple(seeds), tuple(styles), score, "all")


def run_study(
    name: str,
    parts: Iterable[Experiment],
    options: argparse.Namespace,
    *,
    backbone: str = "tiny",
    precision: str = "auto",
    work: Callable[..., list[Outcome]] = run_jobs,
) -> list[Result]:
    """The results of every job of the plan, by the names of tasks; those that `options.out` lacks are run.

    `work` makes the outcomes of a job, as `run_jobs`, each on one thread.
    """
    root: Path = options.tasks
    located = [
        replace(part, datasets=_below(root, part.datasets), targets=_below(root, part.targets)) for part in parts
    ]
    about = f"# python -m studies.{name}\n"
    plan = Plan(name, backbone, precision, None, tuple(located), about)
    found = {_identity(result): result for result in published(options.out)}
    known = {job.key for job in plan.jobs() if _identity(_named(job)) in found}
    wanted = {_identity(_named(job)) for job in plan.jobs()}
    rows = [result for identity, result in found.items() if identity in wanted]
    if len(known) < len(plan.jobs()):
        os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes when they start
        run = options.out.with_suffix("")
        workers = LocalProcesses(options.processes)
        rows += [
            _named(r) for r in run_plan(plan, run, root=root, executor=workers, work=work, leave=known, tell=_tell)
        ]
    return rows


def arguments(about: str | None, processes: int = 2) -> argparse.ArgumentParser:
    """The options that all studies have."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True, help="folder with a folder a task")
    parser.add_argument(
        "--out", type=Path, required=True, help="published results; what they lack is run into the folder of that name"
    )
    parser.add_argument("--processes", type=int, default=processes)
    return parser


def published(path: Path) -> list[Result]:
    """The results in a published file, in its order; none where there is no file."""
    text = path.read_text("utf-8") if path.exists() else ""
    rows = [row for _, row in json_lines(text) if not isinstance(row, ValueError)]
    return [Result.from_json(EMPTY | row, str(path)) if "format" in row else _of_first_version(row) for row in rows]


def publish(rows: Iterable[Result], path: Path) -> None:
    """Write results that are done as lines for `published`: without paths, versions and settings of the plan."""
    lines = [_named(row).to_json() for row in rows if row.done]
    path.write_text("".join(json_line({k: v for k, v in line.items() if k not in LEFT_OUT}) for line in lines), "utf-8")


def _of_first_version(row: dict[str, Any]) -> Result:
    along = {"steps": row["steps"], "right": row["right"], "images": [row["images"]]} if "right" in row else None
    if along is not None:
        along["seconds"] = [] if row["seconds"] is None else [row["seconds"]]  # of the whole run
    return Result(
        row["key"], "published", "domain" if row.get("domains") else "fewshot", row["method"],
        row["label"] or row["method"], row["task"], row["shots"], row["seed"], row["options"], row["train"],
        split_hash=row["split"], learned=row.get("learned"), images=row["images"], epochs=row.get("epochs"),
        seconds=row["seconds"], accuracy=row["accuracy"], correct=row.get("correct", {}), curve=along,
    )  # fmt: skip


def _below(root: Path, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(root.absolute() / name) for name in names)


def _named(found: Any) -> Any:
    """A job or result with tasks and styles by their names, wherever their folders lie."""
    found = replace(found, dataset=Path(found.dataset).name)
    if isinstance(found, Job):
        return found
    by_name = {
        name: {Path(key).name: value for key, value in getattr(found, name).items()} for name in ("accuracy", "correct")
    }
    return replace(found, **by_name)


def _identity(found: Job | Result) -> str:
    """What was run: the same for a job and its result."""
    test = found.score == "test" if isinstance(found, Job) else "test" in found.accuracy
    names = (found.dataset, found.method, found.label, found.shots, found.seed, found.options, found.train, test)
    return json.dumps(names, sort_keys=True)


def _tell(step: Step) -> None:
    row = step.result
    scores = " ".join(f"{Path(name).name} {100 * value:.1f}" for name, value in row.accuracy.items()) or row.error
    where = f"{Path(row.dataset).name} {row.shots} shots seed {row.seed}"
    print(f"{step.done}/{step.total} {row.label} {where}: {scores}", flush=True)


def mean_and_deviation(values: list[float]) -> str:
    """`12.3 ± 0.4`, in per cent."""
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{100 * np.mean(values):.1f} ± {100 * spread:.1f}"
