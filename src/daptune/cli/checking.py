"""`daptune data check FOLDER`: all images of a source are decoded and compared with each other."""

from collections.abc import Callable

from daptune.cli.console import emit_json, note, print_table, progress, warnings_shown
from daptune.data.cache import Decoder
from daptune.data.check import DecodeReport, check_readable
from daptune.data.identical import Identical, find_identical
from daptune.data.table import ImageTable, Splits
from daptune.errors import DataError

Counts = dict[str, dict[str, int]]


def check_images(name: str, read: Callable[[], Splits], json: bool) -> int:
    """Print what is found in the source that `read` reads. Raises DataError if something is wrong with its images."""
    decoder = Decoder(0)
    with warnings_shown(), progress(steps=True) as bar:
        tables = read().present()
        task = bar.add_task("decoding", total=sum(map(len, tables.values())), note="")
        reports = {}
        for split, table in tables.items():
            reports[split] = check_readable(table, decoder, after_image=lambda: bar.advance(task))
    found = find_identical(tables, decoder.digest)
    problems = [str(report) for report in reports.values() if report] + found.lines()
    if json:
        emit_json({"source": name, "splits": _counts(tables, reports, found), "problems": problems})
    else:
        cells = [(split, *row.values()) for split, row in _counts(tables, reports, found).items()]
        columns = ("split", "images", "classes", "smallest", "unreadable", "in two classes", "in train", "repeated")
        print_table(name, columns, cells)
    for problem in problems[1:]:
        note(f"daptune: {problem}")
    if problems:
        raise DataError(f"{name}: {problems[0]}")
    return 0


def _counts(
    tables: dict[str, ImageTable], reports: dict[str, DecodeReport], found: Identical
) -> dict[str, dict[str, int]]:
    """A row of counts for each split, in the order of the columns."""
    rows = {}
    for split, table in tables.items():
        counts = table.counts()
        pairs = (found.contradictions, found.leaks, found.repeats)
        two, leaked, repeated = (sum(pair[0].table == split for pair in kind) for kind in pairs)
        rows[split] = {
            "images": len(table),
            "classes": int((counts > 0).sum()),
            "fewest": int(counts[counts > 0].min()),
            "unreadable": len(reports[split].unreadable),
            "in_two_classes": two,
            "also_in_train": leaked,
            "repeated": repeated,
        }
    return rows
