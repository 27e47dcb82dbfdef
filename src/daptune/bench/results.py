"""The results file: one JSON object per line, append-only, each line synced to disk before the next.

RUN/plan.toml        the plan                    RUN/adapters/<key>/   the adapter of each job
RUN/results.jsonl    one result per line; of several with the same key the last one counts

`Result` is a line; `daptune bench` writes it, `daptune report` and the studies read it.
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from daptune import files, locks
from daptune.adapter.fields import json_types
from daptune.adapter.record import write_folder
from daptune.bench.plan import Job, Plan
from daptune.errors import DataError, PlanError, foreign
from daptune.files import json_line, json_lines, told

FORMAT = 1
RESULTS, PLAN, ADAPTERS, LOCK = "results.jsonl", "plan.toml", "adapters", ".lock"
NOT_TARGETS = ("test", "val")
_log = logging.getLogger("daptune")


@dataclass(frozen=True)
class Result:
    """A finished or failed job. Accuracies and mAP are shares, 0 to 1."""

    key: str
    plan: str
    experiment: str
    method: str
    label: str
    dataset: str
    shots: int
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    ensemble: str = "none"
    status: str = "done"  # "done" or "failed"; a failed job has no fields after `error`
    error: str = ""
    method_config: dict[str, Any] = field(default_factory=dict)
    train_config: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, str] = field(default_factory=dict)
    split_hash: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    learned: int | None = None
    images: int | None = None
    epochs: int | None = None
    seconds: float | None = None
    dispersion: dict[str, float | None] | None = None
    selected: dict[str, Any] | None = None
    """Epoch selected on validation images and its accuracies: "epoch", "test", "val"."""
    peak_bytes: float | None = None
    accuracy: dict[str, float] = field(default_factory=dict)
    """After the last step: "test", "val", and the names of target data sets, or "base" and "new"."""
    mean_average_precision: dict[str, float] = field(default_factory=dict)
    """mAP of "test" and "val" of images with any number of labels, which have neither `accuracy` nor `correct`."""
    nll: dict[str, float] = field(default_factory=dict)
    """Negative log-likelihood of "test" and "val", in nats; `ece` their expected calibration error, 0 to 1."""
    ece: dict[str, float] = field(default_factory=dict)
    correct: dict[str, str] = field(default_factory=dict)
    """For each split measured, a 1 or 0 per image in table order."""
    skipped: dict[str, str] = field(default_factory=dict)  # targets that were not measured -> reason
    curve: dict[str, list[float]] | None = None
    """Learning curve, if recorded: "steps", "right" (correct validation images), "seconds"."""
    run: Path | None = field(default=None, compare=False)
    """The folder that it was read from; not stored in the file."""

    @property
    def done(self) -> bool:
        return self.status == "done"

    @property
    def figure(self) -> str:
        """What `scores` are, as tables call it."""
        return "mAP" if self.mean_average_precision else "accuracy"

    @property
    def scores(self) -> dict[str, float]:
        """The figure by split."""
        return self.mean_average_precision or self.accuracy

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the measured splits besides "test" and "val"."""
        return tuple(name for name in self.accuracy if name not in NOT_TARGETS)

    def to_json(self) -> dict[str, Any]:
        """The line of the file. A failure has only the fields up to `error`."""
        content: dict[str, Any] = {"format": FORMAT}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name != "run" and (item.name not in _ABSENT or value != _ABSENT[item.name]):
                content[item.name] = list(value) if isinstance(value, tuple) else value
            if item.name == "error" and value:
                break
        return content

    @classmethod
    def from_json(cls, row: object, where: str, run: Path | None = None) -> "Result":
        """The result in a line, with checked fields. Raises DataError; its message begins with `where`."""
        content = _checked_format(row, where)
        needed = _NAMES | _MEASURED
        if content.get("status") != "done":
            content = {name: content.get(name) for name in _HEAD} | {"status": "failed"}
            content["error"] = " ".join(str(content["error"] or "no reason given").split())
            needed = _NAMES
        found: dict[str, Any] = {}
        for name, kinds in _KINDS.items():
            value = content.get(name)
            if value is None and name not in needed:
                continue
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise DataError(f"{where}: {name!r} is {str(value)[:40]!r}; this is not a result of `daptune bench`")
            found[name] = value
        if not found["key"].isalnum():  # it names a folder
            raise DataError(f"{where}: {found['key'][:40]!r} is not the key of a job")
        _check_numbers(found, where)
        found["class_names"] = tuple(str(name) for name in found.get("class_names", ()))
        for name in ("backbone", "versions", "skipped"):
            found[name] = {str(key): str(value) for key, value in found.get(name, {}).items()}
        return cls(run=run, **found)


_KINDS = {item.name: json_types(item.type) for item in fields(Result) if item.name != "run"}
_HEAD = list(_KINDS)[: list(_KINDS).index("error") + 1]
_ABSENT: dict[str, Any] = {
    "error": "", "skipped": {}, "curve": None, "ensemble": "none", "nll": {}, "ece": {}, "mean_average_precision": {},
}  # fmt: skip
"""Fields that are left out of a line if they have these values."""
_NAMES, _MEASURED = {*_HEAD[:8]}, {"accuracy", "backbone", "class_names"}
"""Required fields of every line, and of a finished job."""


def _checked_format(row: object, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, found {type(row).__name__}")
    version = row.get("format")
    if not isinstance(version, int) or version < 1:
        raise DataError(f"{where}: expected format {FORMAT}, found {version!r}; not a result of `daptune bench`")
    if version > FORMAT:
        raise DataError(f"{where}: format {version} is newer than this daptune; update with: pip install -U daptune")
    return dict(row)


def _check_numbers(found: dict[str, Any], where: str) -> None:
    for name in ("accuracy", "mean_average_precision", "dispersion"):
        for key, value in (found.get(name) or {}).items():
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                raise DataError(f"{where}: {name} of {key!r} is {value!r}; expected a number")
    for name in ("accuracy", "mean_average_precision"):
        found[name] = {key: value for key, value in found.get(name, {}).items() if value is not None}
    for name, bits in found.get("correct", {}).items():
        if not isinstance(bits, str) or set(bits) - {"0", "1"}:
            raise DataError(f"{where}: 'correct' of {name!r} must be a text of 0 and 1")


@dataclass(frozen=True)
class ResultLines:
    results: tuple[Result, ...]
    damaged: tuple[DataError, ...] = ()  # one for each line that is not a result
    cut_off: bool = False  # the last line is incomplete, as after a kill


def _result(row: object, where: str, run: Path) -> Result:
    with foreign(lambda why: DataError(f"{where}: not a result of `daptune bench` ({why})")):
        return Result.from_json(row, where, run)


def parse_results(content: bytes, path: Path) -> ResultLines:
    results, damaged, cut_off = [], [], False
    ends = content.count(b"\n")
    for number, row in json_lines(content):
        where = f"{path}, line {number}"
        if isinstance(row, ValueError) and number > ends:
            cut_off = True
        elif isinstance(row, ValueError):
            damaged.append(DataError(f"{where}: not JSON ({row}); is it a result of `daptune bench`?"))
        else:
            try:
                results.append(_result(row, where, path.parent))
            except DataError as error:
                damaged.append(error)
    return ResultLines(tuple(results), tuple(damaged), cut_off)


def read_results(run: Path) -> list[Result]:
    """The results in a folder, one per key; damaged lines are skipped and logged. Raises PlanError without a file."""
    path = run / RESULTS
    with told(lambda why: PlanError(f"no results at {path} ({why}); name a folder written by `daptune bench`")):
        return list(_by_key(parse_results(path.read_bytes(), path)).values())


class Results:
    """The results of a plan in a folder, open for writing."""

    def __init__(self, run: Path, file: io.FileIO, rows: dict[str, Result]) -> None:
        self.run, self.rows, self._file = run, rows, file

    def add(self, result: Result, adapter: Mapping[str, bytes]) -> None:
        """Append a result and write its adapter; both are on disk when this returns."""
        if adapter:
            write_folder(self.run / ADAPTERS / result.key, adapter)
        line = json_line(result.to_json()).encode()
        path = self.run / RESULTS
        with told(lambda why: PlanError(f"{path} was not extended ({why}); run the same command to resume")):
            files.append(self._file, line)
        self.rows |= _by_key(parse_results(line, path))  # as a later run will read it


@contextmanager
def open_results(run: Path, plan: Plan, jobs: Sequence[Job]) -> Iterator[Results]:
    """Open the folder, creating it if missing; an incomplete last line, and what a killed process left, is removed.

    Raises PlanError if it has results of another plan or another process is writing to it.
    """
    path = run / RESULTS
    with contextlib.ExitStack() as held:
        with told(lambda why: PlanError(f"{path} cannot be written ({why}); name another folder with --out")):
            run.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(locks.lock(run / LOCK))
            except locks.Busy as busy:
                raise PlanError(f"{busy} is writing to {run}; wait for it, or name another folder with --out") from None
            files.clear(run)
            files.clear(run / ADAPTERS)
            file = held.enter_context(path.open("a+b", buffering=0))
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            file.truncate(len(whole))
        rows = _by_key(parse_results(whole, path))
        _check(rows, plan, {job.key for job in jobs}, run)
        with told(lambda why: PlanError(f"{run / PLAN} was not written ({why}); run the same command to resume")):
            files.write(run / PLAN, plan.text.encode())
        yield Results(run, file, rows)


def _by_key(lines: ResultLines) -> dict[str, Result]:
    for error in lines.damaged:
        _log.warning("skipped a damaged line: %s", error)
    return {result.key: result for result in lines.results}


def _check(rows: Mapping[str, Result], plan: Plan, keys: set[str], run: Path) -> None:
    advice = "name another folder with --out"
    if other := next((row for row in rows.values() if row.plan != plan.name), None):
        raise PlanError(f"{run} holds results of the plan {other.plan!r}, not of {plan.name!r}; {advice}")
    if strange := [row for key, row in rows.items() if key not in keys]:
        what = "label {0.label}, dataset {0.dataset}, shots {0.shots}, seed {0.seed}".format(strange[0])
        raise PlanError(
            f"{run} holds {len(strange)} results that are not in the plan {plan.name!r} ({what}), so the plan was "
            f"changed; {advice}"
        )
