"""Runs the jobs that a results file lacks, a process a core; stopped at any time, the next call goes on."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from studies.job import Job, run


def results(path: Path) -> list[dict[str, Any]]:
    """The rows so far; a line that was cut off by a kill is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def run_missing(
    jobs: Iterable[Job], path: Path, root: Path, processes: int, run: Callable[..., dict[str, Any]] = run
) -> list[dict[str, Any]]:
    """Run what is not in `path` yet, each job on one thread, and return all rows of `jobs`.

    `run` makes a job's row; it is a module's own function, for processes that start anew have to find it.
    """
    wanted = {job.key: job for job in jobs}
    done = {row["key"] for row in results(path)}
    missing = [job for key, job in wanted.items() if key not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the workers when they start
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool, path.open("a") as file:
        for number, row in enumerate(pool.imap_unordered(partial(run, root=root), missing), 1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            scores = " ".join(f"{name} {100 * value:.1f}" for name, value in row["accuracy"].items())
            where = f"{row['task']} {row['shots']} shots seed {row['seed']}"
            print(f"{number}/{len(missing)} {row['label'] or row['method']} {where}: {scores}", flush=True)
    return [row for row in results(path) if row["key"] in wanted]
