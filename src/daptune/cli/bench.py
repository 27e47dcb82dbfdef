"""`daptune bench`: run the missing jobs of a plan and print tables of the results."""

import shlex
from collections import Counter, defaultdict
from pathlib import Path

from daptune.bench.executors import Executor, LocalProcesses, RayCluster
from daptune.bench.plan import Plan, find_plan, ready_plans
from daptune.bench.results import RESULTS, Result, read_results
from daptune.bench.runner import Step, run_plan
from daptune.bench.summary import counted, tables
from daptune.cli.console import emit_json, note, percent, print_table, progress, say
from daptune.cli.options import BenchOptions
from daptune.data.benchmarks.reading import data_root
from daptune.errors import Interrupted, PlanError


def run(name: str | None, options: BenchOptions) -> int:
    """Run the command. Raises PlanError for a bad plan or folder."""
    if name is None:
        return _list_plans(options.json)
    if options.processes is not None and options.processes < 1:
        raise PlanError(f"--processes must be at least 1; found {options.processes}")
    if options.executor != "ray" and options.ray_address is not None:
        raise PlanError("--ray-address needs --executor ray; add it, or leave out --ray-address")
    plan = find_plan(name)
    run_dir = (options.out or Path("runs") / plan.name).expanduser()
    if options.listing:
        return _list_jobs(plan, run_dir, options.json)
    ray = options.executor == "ray"
    workers: Executor = RayCluster(options.ray_address) if ray else LocalProcesses(options.processes)
    with progress(steps=False) as bar:
        task = bar.add_task(f"bench {plan.name}", total=None, note="starting")

        def tell(step: Step) -> None:
            bar.update(
                task, description=f"bench {plan.name}", total=step.total, completed=step.done,
                note=f"{step.done}/{step.total}, {_time(step.seconds_left)} left",
            )  # fmt: skip
            bar.console.print(_line(step), markup=False, soft_wrap=True)

        root = data_root(options.data_root)
        try:
            rows = run_plan(
                plan, run_dir, root=root, executor=workers, device=options.device, retry=options.retry, tell=tell
            )
        except KeyboardInterrupt as error:
            raise Interrupted(f"stopped; finished results are in {run_dir}; run the same command to resume.") from error
    failures = [row for row in rows if not row.done]
    done, found = len(rows) - len(failures), tables(rows)
    if options.json:
        failed = [{"job": _where(row), "error": row.error} for row in failures]
        shown = [{name: getattr(table, name) for name in ("title", "figure", "columns", "cells")} for table in found]
        emit_json({"plan": plan.name, "run": str(run_dir), "done": done, "failed": failed, "tables": shown})
    else:
        for table in found:
            print_table(f"{table.title}: {table.figure} in %, mean ± deviation over seeds", table.columns, table.cells)
        say(f"{done} results in {run_dir / RESULTS}")
    if failures:
        again = shlex.join(["daptune", "bench", name, *(("--out", str(options.out)) if options.out else ()), "--retry"])
        first = failures[0]
        note(f"daptune: {len(failures)} of {len(rows)} jobs failed, first {_where(first)}: {first.error}")
        note(f"daptune: to retry the failed jobs: {again}")
    return 2 if failures else 0


def _list_plans(as_json: bool) -> int:
    about = {name: text.partition("\n")[0].lstrip("# ").rstrip() for name, text in ready_plans().items()}
    if as_json:
        emit_json(about)
    else:
        print_table("ready plans", ("plan", "description"), list(about.items()), left=2)
        say("run one with: daptune bench PLAN; docs/reproduce.md describes how to write a plan (.toml)")
    return 0


def _list_jobs(plan: Plan, run_dir: Path, as_json: bool) -> int:
    there = {row.key: row.status for row in read_results(run_dir)} if (run_dir / RESULTS).exists() else {}
    counts: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for job in plan.jobs():
        counts[job.experiment, job.dataset, job.label][there.get(job.key, "missing")] += 1
    states = ("done", "failed", "missing")
    cells = [(*place, *(found[state] for state in states)) for place, found in counts.items()]
    if as_json:
        names = ("experiment", "dataset", "label", *states)
        emit_json([dict(zip(names, cell, strict=True)) for cell in cells])
    else:
        print_table(f"{plan.name} in {run_dir}", ("experiment", "data set", "method", *states), cells, left=3)
    return 0


def _line(step: Step) -> str:
    row = step.result
    kind = " mAP" if row.mean_average_precision else ""
    scores = ", ".join(f"{name}{kind} {percent(value)}" for name, value in row.scores.items())
    what = f"{scores} ({row.seconds:.0f} s)" if row.done else f"failed: {row.error}"
    return f"{step.done}/{step.total} {_where(row)}: {what}; {_time(step.seconds_left)} left"


def _where(row: Result) -> str:
    return f"{row.experiment}, {row.label} on {row.dataset}, {counted(row.shots, 'shot')}, seed {row.seed}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
