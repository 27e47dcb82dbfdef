"""Runs what a plan's results lack. Killed at any moment, the same call goes on."""

import time
from collections import defaultdict
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
    """A result that has come in, and how things stand; counts are of this call's jobs."""

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
    """Run the jobs of `plan` that `run` has no result of, and return those of all, in the plan's order.

    root    folder of the benchmark data sets
    retry   also run what failed before
    tell    called for each result when it is written down
    leave   keys of jobs that are not to be run
    work    makes the outcomes of a group of jobs

    Raises PlanError where the folder holds something else. A job that fails is a result, and raises nothing.
    """
    jobs = plan.jobs()
    executor = LocalProcesses() if executor is None else executor
    with open_results(run, plan, jobs) as results:
        missing = [job for job in jobs if job.key not in leave and lacks(results.rows.get(job.key), retry)]
        if isinstance(executor, LocalProcesses):
            executor.peak = max(executor.peak, *(int(row.peak_bytes or 0) for row in results.rows.values()), 0)
        left = _Remaining(by_training(missing))
        with closing(executor.run(left.groups, Setting(root, device, work))) as outcomes:  # type: ignore[type-var]
            done = 0
            for group, found in outcomes:
                left.take(group)
                for outcome in found:
                    results.add(outcome.result, outcome.adapter)
                    done += 1
                    if tell is not None:
                        tell(Step(outcome.result, done, len(missing), left.seconds()))
        return [results.rows[job.key] for job in jobs if job.key in results.rows]


def lacks(result: Result | None, retry: bool) -> bool:
    """Whether a job is to be run, given its result so far."""
    return result is None or (retry and not result.done)


def by_training(jobs: Sequence[Job]) -> list[Group]:
    """Jobs put together that one training serves, in the order of the first of each."""
    groups: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[job.training].append(job)
    return list(groups.values())


class _Remaining:
    """What is still to be done, and how long that may take."""

    def __init__(self, groups: list[Group]) -> None:
        self.groups, self._open = groups, {group[0].training: group[0] for group in groups}
        self._began, self._count = time.monotonic(), len(groups)

    def take(self, group: Group) -> None:
        """Note that a group is done."""
        self._open.pop(group[0].training, None)

    def seconds(self) -> float:
        """Time left if what is to come takes as long as what came."""
        done = self._count - len(self._open)
        return (time.monotonic() - self._began) / max(1, done) * len(self._open)
