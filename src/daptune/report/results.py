"""Results of `daptune bench`: RUN/results.jsonl, one JSON object a line, read with every field checked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daptune.errors import DataError

FORMAT = 1
RESULTS = "results.jsonl"
PLAN = "plan.toml"
NOT_TARGETS = ("test", "val")


@dataclass(frozen=True)
class Result:
    """One line of a finished job. Accuracies are shares, 0 to 1."""

    key: str
    run: Path
    plan: str
    experiment: str
    method: str
    label: str
    dataset: str
    shots: int
    seed: int
    accuracy: dict[str, float]
    """Of the last step: "test", "val", and the names of target data sets, or "base" and "new"."""
    correct: dict[str, str]
    """For each split measured, a 1 or 0 an image in table order."""
    backbone: dict[str, str]
    split_hash: str
    versions: dict[str, str]
    class_names: tuple[str, ...]
    learned: int | None = None
    seconds: float | None = None
    peak_bytes: float | None = None
    selected: dict[str, Any] | None = None
    """Of the epoch that validation chose: "epoch", "test", "val"."""
    dispersion: dict[str, float] | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    """Targets that were not measured, with the reason."""

    @property
    def targets(self) -> tuple[str, ...]:
        """What was measured beside the images of the same data set."""
        return tuple(name for name in self.accuracy if name not in NOT_TARGETS)


@dataclass(frozen=True)
class Failure:
    """A job that ended with an error."""

    label: str
    dataset: str
    shots: str
    seed: str
    error: str


@dataclass(frozen=True)
class Runs:
    """What several folders hold together."""

    folders: tuple[Path, ...]
    results: tuple[Result, ...]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = field(default=())


def is_bench_run(folder: Path) -> bool:
    """Whether `daptune bench` wrote there."""
    return (folder / RESULTS).is_file()


def read_runs(folders: Sequence[Path]) -> Runs:
    """All finished results; of a job that several lines tell of, the last that is done counts.

    Raises DataError, one line with file and line number, for what is no result, and where nothing is finished.
    """
    done: dict[tuple[str, str, str], Result] = {}
    failed: dict[tuple[str, str, str], Failure] = {}
    notes = []
    for folder in folders:
        path = folder / RESULTS
        try:
            lines = path.read_text("utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise DataError(f"{path} cannot be read: {reason}; name a folder that `daptune bench` wrote") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = _object(path, number, line)
            except DataError:
                if number < len(lines):
                    raise
                notes.append(f"The last line of {path} is not complete, as after an interruption; it is left out.")
                continue
            key = (str(row.get("plan")), str(row.get("experiment")), str(row.get("key")))
            if row.get("status") == "done":
                done[key] = _result(path, number, row, folder)
                failed.pop(key, None)
            elif key not in done:
                failed[key] = _failure(row)
    if not done:
        names = ", ".join(str(folder) for folder in folders)
        jobs = f"; {len(failed)} jobs failed, such as: {next(iter(failed.values())).error}" if failed else ""
        raise DataError(f"{names}: no finished result to report on{jobs}; go on with `daptune bench`")
    return Runs(tuple(folders), tuple(done.values()), tuple(failed.values()), tuple(notes))


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: not JSON ({error}); is it a result of `daptune bench`?") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: expected an object, found {type(row).__name__}")
    version = row.get("format")
    if not isinstance(version, int) or version < 1:
        raise DataError(f"{path}, line {number}: expected format {FORMAT}, found {version!r}; not of `daptune bench`")
    if version > FORMAT:
        raise DataError(f"{path}, line {number}: format {version} is newer than this daptune; pip install -U daptune")
    return row


_KINDS: dict[str, type | tuple[type, ...]] = {
    "key": str, "plan": str, "experiment": str, "method": str, "label": str, "dataset": str, "shots": int, "seed": int,
    "accuracy": dict, "correct": dict, "backbone": dict, "split_hash": str, "versions": dict, "class_names": list,
    "learned": (int, type(None)), "seconds": (int, float, type(None)), "peak_bytes": (int, float, type(None)),
    "selected": (dict, type(None)), "dispersion": (dict, type(None)),
    "skipped": dict,
}  # fmt: skip
_OPTIONAL: dict[str, Any] = {
    "learned": None, "seconds": None, "peak_bytes": None, "selected": None, "dispersion": None, "split_hash": "",
    "versions": {}, "correct": {}, "skipped": {},
}  # fmt: skip


def _result(path: Path, number: int, row: Mapping[str, Any], folder: Path) -> Result:
    found: dict[str, Any] = {}
    for name, kind in _KINDS.items():
        value = row.get(name)
        if value is None and name in _OPTIONAL:
            value = _OPTIONAL[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(f"{path}, line {number}: {name!r} is {str(value)[:40]!r}; not a result of `daptune bench`")
        found[name] = value
    for name in ("accuracy", "dispersion"):
        known = {str(key): value for key, value in (found[name] or {}).items() if value is not None}
        for key, value in known.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise DataError(f"{path}, line {number}: {name} of {key!r} is {value!r}; expected a number")
        found[name] = known or (None if name == "dispersion" else {})
    for name, bits in found["correct"].items():
        if not isinstance(bits, str) or set(bits) - {"0", "1"}:
            raise DataError(f"{path}, line {number}: 'correct' of {name!r} must be a text of 0 and 1")
    if not found["key"].isalnum():  # it names a folder
        raise DataError(f"{path}, line {number}: {found['key'][:40]!r} is no key of a job")
    found["class_names"] = tuple(str(name) for name in found["class_names"])
    for name in ("backbone", "versions", "skipped"):
        found[name] = {str(key): str(value) for key, value in found[name].items()}
    return Result(run=folder, **found)


def _failure(row: Mapping[str, Any]) -> Failure:
    label, dataset, shots, seed = (str(row.get(name, "?")) for name in ("label", "dataset", "shots", "seed"))
    return Failure(label, dataset, shots, seed, " ".join(str(row.get("error") or "no reason given").split()))
