"""The results in one or more folders of `daptune bench`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from daptune.bench.results import RESULTS, Result, parse_results
from daptune.errors import DataError
from daptune.files import reason


@dataclass(frozen=True)
class Runs:
    """Finished results, and failed jobs without a later success."""

    folders: tuple[Path, ...]
    results: tuple[Result, ...]
    failures: tuple[Result, ...] = ()
    notes: tuple[str, ...] = ()


def is_bench_run(folder: Path) -> bool:
    return (folder / RESULTS).is_file()


def read_runs(folders: Sequence[Path]) -> Runs:
    """All finished results; of several lines for a job, the last finished one counts.

    Raises DataError for a damaged line, with file and line number, without any finished result, and for mAP.
    """
    done: dict[tuple[str, str, str], Result] = {}
    failed: dict[tuple[str, str, str], Result] = {}
    notes = []
    for folder in folders:
        path = folder / RESULTS
        try:
            lines = parse_results(path.read_bytes(), path)
        except OSError as error:
            message = f"{path} cannot be read: {reason(error)}; name a folder written by `daptune bench`"
            raise DataError(message) from error
        if lines.damaged:
            raise lines.damaged[0]
        if lines.cut_off:
            notes.append(f"The last line of {path} is incomplete, as after an interruption, and was skipped.")
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
        raise DataError(f"{names}: no finished result to report on{jobs}; run `daptune bench` again to continue")
    if several := next((result for result in done.values() if result.mean_average_precision), None):
        what = f"{several.label} on {several.dataset} was measured by mAP, of images with several labels"
        raise DataError(
            f"{folders[0]}: {what}, and a report compares accuracies; `daptune bench` prints a table of mAP"
        )
    if not any(set(result.accuracy) - {"val"} for result in done.values()):
        what = "only validation images were measured, but a report needs test images"
        raise DataError(f"{folders[0]}: {what}; `daptune bench` prints a table of these results")
    return Runs(tuple(folders), tuple(done.values()), tuple(failed.values()), tuple(notes))
