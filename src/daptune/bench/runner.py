"""Runs the jobs of a plan that have no result yet; after an interruption the same call resumes."""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from daptune.bench.executors import Executor, Group, LocalProcesses, Setting
from daptune.bench.job import Outcome, run_jobs
from daptune.bench.plan import Job, Plan
from daptune.bench.results import Result, open_results


@dataclass(frozen=True)
class Step:
    result: Result
    done: int
    total: int
    seconds_left: float


def run_plan(
    plan: Plan,
    run: Path,
    *,
    root: Path,
    executor: Executor | None = None,
    device: str = "cpu",
    retry: bool = False,
    tell: Callable[[Step], None] | None = None,
    leave: Collection[str] = (),
    work: Callable[..., list[Outcome]] = run_jobs,
) -> list[Result]:
    """Run the jobs of `plan` without a result in the folder `run`; return the results of all, in the plan's order.

    root    folder of the benchmark data sets
    retry   run failed jobs again
    tell    called after each result is written
    leave   keys of jobs to skip
    work    computes the outcomes of a group of jobs

    Raises PlanError if the folder holds something else. A failing job raises nothing; it has a result too.
    """
    jobs = plan.jobs()
    executor = LocalProcesses() if executor is None else executor
    with open_results(run, plan, jobs) as results:
        there = {key for key, row in results.rows.items() if row.done or not retry}
        missing = [job for job in jobs if job.key not in leave and job.key not in there]
        if isinstance(executor, LocalProcesses):
            executor.peak = max(executor.peak, *(int(row.peak_bytes or 0) for row in results.rows.values()), 0)
        groups, began, done = by_training(missing), time.monotonic(), 0
        with closing(executor.run(groups, Setting(root, device, work))) as outcomes:  # type: ignore[type-var]
            for number, (_, found) in enumerate(outcomes, 1):
                left = (time.monotonic() - began) / number * (len(groups) - number)  # at the mean time so far
                for outcome in found:
                    results.add(outcome.result, outcome.adapter)
                    done += 1
                    if tell is not None:
                        tell(Step(outcome.result, done, len(missing), left))
        return [results.rows[job.key] for job in jobs if job.key in results.rows]


def by_training(jobs: Sequence[Job]) -> list[Group]:
    """Groups of jobs that share a training, in the order of their first jobs."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.training, []).append(job)
    return list(groups.values())
