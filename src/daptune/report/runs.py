"""What one or several folders of `daptune bench` hold together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from daptune.bench.results import RESULTS, Result, parse_results
from daptune.errors import DataError
from daptune.files import reason


@dataclass(frozen=True)
class Runs:
    """Results that are done, and jobs that failed and were not done again."""

    folders: tuple[Path, ...]
    results: tuple[Result, ...]
    failures: tuple[Result, ...] = ()
    notes: tuple[str, ...] = ()


def is_bench_run(folder: Path) -> bool:
    """Whether `daptune bench` wrote there."""
    return (folder / RESULTS).is_file()


def read_runs(folders: Sequence[Path]) -> Runs:
    """All finished results; of a job that several lines tell of, the last that is done counts.

    Raises DataError, one line with file and line number, for what is no result, and where nothing is finished.
    """
    done: dict[tuple[str, str, str], Result] = {}
    failed: dict[tuple[str, str, str], Result] = {}
    notes = []
    for folder in folders:
        path = folder / RESULTS
        try:
            lines = parse_results(path.read_bytes(), path)
        except OSError as error:
            message = f"{path} cannot be read: {reason(error)}; name a folder that `daptune bench` wrote"
            raise DataError(message) from error
        if lines.damaged:
            raise lines.damaged[0]
        if lines.cut_off:
            notes.append(f"The last line of {path} is not complete, as after an interruption; it is left out.")
        for result in lines.results:
            key = (result.plan, result.experiment, result.key)
            if result.done:
                done[key] = result
                failed.pop(key, None)
            elif key not in done:
                failed[key] = result
    if not done:
        names = ", ".join(str(folder) for folder in folders)
        jobs = f"; {len(failed)} jobs failed, such as: {next(iter(failed.values())).error}" if failed else ""
        raise DataError(f"{names}: no finished result to report on{jobs}; go on with `daptune bench`")
    if not any(set(result.accuracy) - {"val"} for result in done.values()):
        what = "only validation images were measured, and a report is of test images"
        raise DataError(f"{folders[0]}: {what}; `daptune bench` prints a table of these results")
    return Runs(tuple(folders), tuple(done.values()), tuple(failed.values()), tuple(notes))
