"""`daptune data`: the benchmark data sets: which there are, what is there of them, and fetching what can be fetched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from daptune.cli.console import emit_json, note, print_pairs, print_table, progress, say
from daptune.data.benchmarks.fetch import Progress
from daptune.data.benchmarks.inventory import Report, check
from daptune.data.benchmarks.prepare import FAILED, THERE, Step, prepare
from daptune.data.benchmarks.reading import data_root
from daptune.data.benchmarks.registry import BENCHMARKS, Benchmark, find
from daptune.errors import DataError


def run_list(root: Path | None, *, as_json: bool) -> int:
    """Every data set with its published counts, and whether its folder is there."""
    place = data_root(root)
    if as_json:
        rows = [_facts(record) | {"present": (place / record.folder).is_dir()} for record in BENCHMARKS.values()]
        emit_json({"root": str(place), "datasets": rows})
        return 0
    cells = [
        (
            record.name,
            "yes" if (place / record.folder).is_dir() else "no",
            *(f"{count:,}" if count else "-" for count in (record.classes, *record.counts)),
            urlsplit(record.page).hostname,
        )
        for record in BENCHMARKS.values()
    ]
    columns = ("name", "there", "classes", "train", "val", "test", "source")
    print_table(f"benchmark data sets below {place}", columns, cells, left=2)
    say("daptune data check NAME     what is there of one, against the published counts")
    say("daptune data prepare NAME   fetch what can be fetched")
    say("daptune fit data:NAME       learn from one")
    return 0


def run_check(name: str, root: Path | None, *, as_json: bool) -> int:
    """The state of one data set; raises DataError where it is not whole, after all has been printed."""
    report = check(name, data_root(root))
    if as_json:
        emit_json(_report_json(report))
    else:
        _print_report(report)
    if report.problems:
        more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
        advice = f"; `daptune data prepare {report.record.name}` fetches what can be fetched"
        raise DataError(f"{report.record.name} is {report.state}: {report.problems[0].rstrip('.')}{more}{advice}")
    return 0


def run_prepare(name: str, root: Path | None, *, keep: bool, as_json: bool) -> int:
    """Fetch what is lacking, then say what has to be done by hand; raises DataError while the set is not whole."""
    record, place = find(name), data_root(root)
    with _bars() as watch:
        steps = prepare(record, place, watch, keep=keep)
    report = check(record.name, place)
    if as_json:
        done = [{"file": step.download.file, "outcome": step.outcome, "reason": step.reason or None} for step in steps]
        emit_json(_report_json(report) | {"downloads": done, "manual": list(record.manual)})
    else:
        print_pairs({step.download.file: step.outcome for step in steps})
        _print_report(report)
    for line in _by_hand(record, steps, report):
        note(line)
    if report.problems:
        raise DataError(f"{record.name} is {report.state}: {report.problems[0].rstrip('.')}")
    return 0


def _by_hand(record: Benchmark, steps: list[Step], report: Report) -> Iterator[str]:
    failed = [step for step in steps if step.outcome == FAILED]
    manual = record.manual if any(entry.needed and not entry.present for entry in report.entries) else ()
    broken = [target for step in steps if step.outcome == THERE for _, target in step.download.unpack]
    broken = broken if report.missing or report.problems else []
    if failed or manual or broken:
        yield f"By hand, into {report.folder} (see {record.page}):"
    for step in failed:
        yield f"  {step.download.file}: {step.reason}"
    for line in manual:
        yield f"  {line}"
    for target in broken:
        yield f"  {target}/ was there and may be half unpacked: remove it, and the same command fetches it again."


@contextmanager
def _bars() -> Iterator[Callable[[str], Progress]]:
    """A bar for each file, in MiB; on stderr, and only on a terminal."""
    with progress(steps=False) as shown:

        def watch(file: str) -> Progress:
            task = shown.add_task(file, total=None, note="")

            def tell(done: int, total: int | None) -> None:
                size = f"{done >> 20} MiB" + (f" of {total >> 20}" if total else "")
                shown.update(task, completed=done, total=total, note=size)

            return tell

        yield watch


def _print_report(report: Report) -> None:
    record = report.record
    marks = [(entry.path, _mark(entry.present, entry.needed), entry.role) for entry in report.entries]
    print_table(f"{record.name} in {report.folder}", ("expected", "", "what for"), marks, left=3)
    rows: list[tuple[Any, ...]] = [(part, f"{found:,}", f"{count:,}") for part, (found, count) in report.counts.items()]
    rows.append(("classes", f"{report.classes:,}", f"{record.classes:,}"))
    print_table("", ("split", "found", "published"), rows)
    if report.missing:
        say(f"{len(report.missing)} images are missing:")
        for path in report.missing[:5]:
            print_pairs({"": path})
    for problem in report.problems:
        print_pairs({"problem": problem})


def _mark(present: bool, needed: bool) -> str:
    if present:
        return "there"
    return "MISSING" if needed else "not there"


def _facts(record: Benchmark) -> dict[str, Any]:
    counts = dict(zip(("train", "val", "test"), record.counts, strict=True))
    return {"name": record.name, "folder": record.folder, "classes": record.classes, **counts, "source": record.page}


def _report_json(report: Report) -> dict[str, Any]:
    return {
        **_facts(report.record),
        "path": str(report.folder),
        "state": report.state,
        "tree": [{"path": entry.path, "present": entry.present, "needed": entry.needed} for entry in report.entries],
        "found": {part: found for part, (found, _) in report.counts.items()} | {"classes": report.classes},
        "missing": list(report.missing[:1000]),
        "problems": list(report.problems),
    }
