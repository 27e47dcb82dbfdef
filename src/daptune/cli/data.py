"""`daptune data`: the benchmark data sets: list them, check a folder, fetch what can be fetched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from cyclopts import App, Parameter

from daptune.cli.app import app
from daptune.cli.console import emit_json, note, print_pairs, print_table, progress, say
from daptune.cli.options import Json
from daptune.errors import DataError

if TYPE_CHECKING:
    from daptune.data.benchmarks.fetch import Progress
    from daptune.data.benchmarks.inventory import Report
    from daptune.data.benchmarks.prepare import Step
    from daptune.data.benchmarks.registry import Benchmark

data = App(
    name="data",
    help="The paper's data sets: list them, check a folder, fetch what can be fetched.",
    help_format="markdown",
)
app.command(data)
_Source = Annotated[
    str, Parameter(help="Name of a data set, as in `daptune data list`, or labelled images of your own.")
]
_Name = Annotated[str, Parameter(help="Name of a data set, as in `daptune data list`.")]
_Root = Annotated[
    Path | None, Parameter(name="--root", help="Folder of the data sets; by default $DAPTUNE_DATA, else ./data.")
]


@data.command(name="list")
def list_all(*, root: _Root = None, json: Json = False) -> int:
    """List the 11 data sets and 4 targets: classes, images by split, where they come from."""
    from daptune.data.benchmarks.reading import data_root
    from daptune.data.benchmarks.registry import BENCHMARKS

    place = data_root(root)
    there = {name: (place / record.folder).is_dir() for name, record in BENCHMARKS.items()}
    if json:
        rows = [_facts(record) | {"present": there[name]} for name, record in BENCHMARKS.items()]
        emit_json({"root": str(place), "datasets": rows})
        return 0
    cells = [
        (
            record.name,
            "yes" if there[name] else "no",
            *(f"{count:,}" if count else "-" for count in (record.classes, *record.counts)),
            urlsplit(record.page).hostname,
        )
        for name, record in BENCHMARKS.items()
    ]
    columns = ("name", "there", "classes", "train", "val", "test", "source")
    print_table(f"benchmark data sets below {place}", columns, cells, left=2)
    say("daptune data check NAME     compare the folder of one with the published counts")
    say("daptune data check FOLDER   look for mistakes in images of your own")
    say("daptune data prepare NAME   fetch what can be fetched")
    say("daptune fit data:NAME       learn from one")
    return 0


@data.command(name="check")
def check_one(source: _Source, /, *, root: _Root = None, images: bool = False, json: Json = False) -> int:
    """Check a data set, or images of your own. Exit code 2 if something is wrong.

    Of a data set by name, the folder is compared with the published one: the tree, what is missing, counts by split.
    Of a folder or table, as for `daptune fit`, every image is decoded: counts, unreadable images, images that are in
    two classes, or in training and test images, and images that are repeated in their class, which is harmless.

    Parameters
    ----------
    images
        Of a data set by name, also decode every image, which can take many minutes.
    """
    from daptune.cli.checking import check_images
    from daptune.data.benchmarks.reading import data_root, read_benchmark
    from daptune.data.benchmarks.registry import BENCHMARKS, canonical
    from daptune.data.sources import read_source

    name, place = canonical(source), Path(source).expanduser()
    if name in BENCHMARKS and images:
        return check_images(name, partial(read_benchmark, name, data_root(root)), json)
    if name in BENCHMARKS or not place.exists():
        return _check_published(source, root, json)
    return check_images(source, partial(read_source, place), json)


def _check_published(name: str, root: Path | None, json: bool) -> int:
    from daptune.data.benchmarks.inventory import check
    from daptune.data.benchmarks.reading import data_root

    report = check(name, data_root(root))
    if json:
        emit_json(_report_json(report))
    else:
        _print_report(report)
    more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
    return _exit(report, f"{more}; `daptune data prepare {report.record.name}` fetches what can be fetched")


@data.command(name="prepare")
def prepare_one(name: _Name, /, *, root: _Root = None, keep: bool = False, json: Json = False) -> int:
    """Fetch a data set as far as it has stable addresses, and list what is left to do by hand.

    Resumes interrupted downloads and checks published checksums.

    Parameters
    ----------
    keep
        Keep the archives after they are unpacked.
    """
    from daptune.data.benchmarks.inventory import check
    from daptune.data.benchmarks.prepare import prepare
    from daptune.data.benchmarks.reading import data_root
    from daptune.data.benchmarks.registry import find

    record, place = find(name), data_root(root)
    with _bars() as watch:
        steps = prepare(record, place, watch, keep=keep)
    report = check(record.name, place)
    if json:
        done = [{"file": step.download.file, "outcome": step.outcome, "reason": step.reason or None} for step in steps]
        emit_json(_report_json(report) | {"downloads": done, "manual": list(record.manual)})
    else:
        print_pairs({step.download.file: step.outcome for step in steps})
        _print_report(report)
    for line in _by_hand(record, steps, report):
        note(line)
    return _exit(report)


def _exit(report: "Report", advice: str = "") -> int:
    """0 for a complete data set; raises DataError with its first problem for others."""
    if report.problems:
        raise DataError(f"{report.record.name} is {report.state}: {report.problems[0].rstrip('.')}{advice}")
    return 0


def _by_hand(record: "Benchmark", steps: "list[Step]", report: "Report") -> Iterator[str]:
    from daptune.data.benchmarks.prepare import FAILED, THERE

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
        yield f"  {target}/ was there and may be half unpacked: remove it and repeat the command to fetch it again."


@contextmanager
def _bars() -> "Iterator[Callable[[str], Progress]]":
    """A bar for each file, in MiB; on stderr, and only on a terminal."""
    with progress(steps=False) as shown:

        def watch(file: str) -> "Progress":
            task = shown.add_task(file, total=None, note="")

            def tell(done: int, total: int | None) -> None:
                size = f"{done >> 20} MiB" + (f" of {total >> 20}" if total else "")
                shown.update(task, completed=done, total=total, note=size)

            return tell

        yield watch


def _print_report(report: "Report") -> None:
    record = report.record
    marks = [
        (entry.path, "there" if entry.present else "MISSING" if entry.needed else "not there", entry.role)
        for entry in report.entries
    ]
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


def _facts(record: "Benchmark") -> dict[str, Any]:
    counts = dict(zip(("train", "val", "test"), record.counts, strict=True))
    return {"name": record.name, "folder": record.folder, "classes": record.classes, **counts, "source": record.page}


def _report_json(report: "Report") -> dict[str, Any]:
    return {
        **_facts(report.record),
        "path": str(report.folder),
        "state": report.state,
        "tree": [{"path": entry.path, "present": entry.present, "needed": entry.needed} for entry in report.entries],
        "found": {part: found for part, (found, _) in report.counts.items()} | {"classes": report.classes},
        "missing": list(report.missing[:1000]),
        "problems": list(report.problems),
    }
