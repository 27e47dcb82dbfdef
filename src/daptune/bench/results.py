"""The file of results: one JSON object a line, only ever added to, each line on the disk before the next job's.

RUN/plan.toml        the plan                    RUN/adapters/<key>/   what each job learned
RUN/results.jsonl    a line a result; of several with one key the last one counts
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from daptune.adapter.record import write_folder
from daptune.bench.plan import Job, Plan
from daptune.errors import PlanError

fcntl: Any
try:
    fcntl = import_module("fcntl")
except ImportError:  # Windows: nobody looks whether another process writes
    fcntl = None

RESULTS, PLAN, ADAPTERS = "results.jsonl", "plan.toml", "adapters"
Row = dict[str, Any]
_log = logging.getLogger("daptune")


def read_results(run: Path) -> list[Row]:
    """The rows of a folder of results, one a key. Raises PlanError where there are none to be read."""
    path = run / RESULTS
    try:
        with path.open("rb") as file:
            return list(_rows(file, path).values())
    except OSError as error:
        raise PlanError(f"no results at {path} ({error.strerror}); name a folder that `daptune bench` wrote") from error


class Results:
    """The results of a plan in a folder, open for writing."""

    def __init__(self, run: Path, file: IO[bytes], rows: dict[str, Row]) -> None:
        self.run, self.rows, self._file = run, rows, file

    def add(self, row: Row, adapter: Mapping[str, bytes]) -> None:
        """Write a result down; when this returns, it is on the disk, and so is its adapter."""
        if adapter:
            folder = self.run / ADAPTERS / row["key"]
            folder.parent.mkdir(exist_ok=True)
            write_folder(folder, adapter)
        self._file.write(json.dumps(row, allow_nan=False, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows[row["key"]] = row


@contextmanager
def open_results(run: Path, plan: Plan, jobs: Sequence[Job]) -> Iterator[Results]:
    """The folder, made where it is missing; a line that a kill cut off is taken away.

    Raises PlanError where it holds the results of another plan, or another process writes into it.
    """
    path = run / RESULTS
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise PlanError(f"{path} cannot be written ({error.strerror}); name another folder with --out") from error
    with file:
        _lock(file, run)
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        file.seek(0)
        rows = _rows(file, path)
        _check(rows, plan, {job.key for job in jobs}, run)
        (run / PLAN).write_text(plan.text, "utf-8")
        yield Results(run, file, rows)


def _rows(file: IO[bytes], path: Path) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for number, line in enumerate(file, 1):
        try:
            row = json.loads(line)
            rows[row["key"]] = row
        except (ValueError, TypeError, KeyError):
            if line.endswith(b"\n"):
                _log.warning("line %d of %s is damaged and left out", number, path)
    return rows


def _check(rows: Mapping[str, Row], plan: Plan, keys: set[str], run: Path) -> None:
    advice = "name another folder with --out"
    if other := next((row for row in rows.values() if row.get("plan") != plan.name), None):
        raise PlanError(f"{run} holds results of the plan {other.get('plan')!r}, not of {plan.name!r}; {advice}")
    strange = [row for key, row in rows.items() if key not in keys]
    if strange:
        what = ", ".join(f"{name} {strange[0].get(name)}" for name in ("label", "dataset", "shots", "seed"))
        raise PlanError(
            f"{run} holds {len(strange)} results that the plan {plan.name!r} does not ask for ({what}), so it was "
            f"changed since; {advice}"
        )


def _lock(file: IO[bytes], run: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise PlanError(f"another `daptune bench` is writing into {run}; wait for it, or name another --out") from error
