"""What of a benchmark data set is there, against what was published."""

from dataclasses import dataclass
from pathlib import Path

from daptune.data.benchmarks.reading import missing_images, read_rows
from daptune.data.benchmarks.registry import Benchmark, find
from daptune.data.table import SPLITS
from daptune.errors import DataError

FEW = 0.01
"""Up to such a part of its images a data set lacks when it is called complete but for these."""


@dataclass(frozen=True)
class Entry:
    """One file or folder that belongs to the data set; `role` says what for, and whether it can be done without."""

    path: str
    role: str
    present: bool
    needed: bool


@dataclass(frozen=True)
class Report:
    """The state of a data set's folder.

    counts: (found, published) images by split; missing: paths that a split names and that are not there;
    problems: in words, what stands against using it, none for a whole data set.
    """

    record: Benchmark
    folder: Path
    entries: tuple[Entry, ...]
    classes: int
    counts: dict[str, tuple[int, int]]
    missing: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def state(self) -> str:
        """`whole`, `absent`, `complete but for N images`, `without its test images` (or val), or `half there`."""
        if not self.problems:
            return "whole"
        if not self.folder.is_dir():
            return "absent"
        found, published = (sum(pair[i] for pair in self.counts.values()) for i in (0, 1))
        if not self.missing or self.classes != self.record.classes:
            return "half there"
        if found + len(self.missing) == published and len(self.missing) <= FEW * published:
            return f"complete but for {len(self.missing):,} images"
        lacking = [part for part, (count, _) in self.counts.items() if not count]
        others = all(count == wanted for part, (count, wanted) in self.counts.items() if part not in lacking)
        return f"without its {' and '.join(lacking)} images" if lacking and others else "half there"


def expected(record: Benchmark, folder: Path) -> tuple[Entry, ...]:
    """The tree of the data set, with what is there of it."""
    split = bool(record.split_file) and (folder / record.split_file).is_file()
    places = record.places or [record.images]
    entries = [Entry(f"{place}/", "images", (folder / place).is_dir(), True) for place in places]
    if record.split_file:
        role = "the authors' split; without it one is drawn, and published figures cannot be compared"
        entries.append(Entry(record.split_file, role, split, False))
    role = "read where the split file is not there" if record.split_file else "class names and splits"
    entries += [Entry(name, role, (folder / name).is_file(), not split) for name in record.notes]
    if record.classes == 1000 or record.layout == "wnids":
        role = "class names; without it those that come with daptune"
        entries.append(Entry("classnames.txt", role, (folder / "classnames.txt").is_file(), False))
    return tuple(entries)


def check(name: str, root: Path) -> Report:
    """Look at `root/<its folder>`. Raises DataError for an unknown name alone: what is wrong is in the report."""
    record = find(name)
    folder = root / record.folder
    entries = expected(record, folder)
    problems = [f"{entry.path} is missing" for entry in entries if entry.needed and not entry.present]
    published = dict(zip(SPLITS, record.counts, strict=True))
    counts = {part: (0, count) for part, count in published.items() if count}
    classes, missing = 0, []
    if not folder.is_dir():
        problems = [f"there is no folder {folder}"]
    else:
        try:
            parts, _ = read_rows(record, folder)
        except DataError as error:
            problems += [] if problems else [str(error)]  # of which what is missing is the cause
        else:
            rows = [row for part in parts.values() for row in part]
            missing = missing_images(folder / record.images, rows)
            gone = set(missing)
            found = {part: sum(row[0] not in gone for row in rows) for part, rows in parts.items()}
            counts = {part: (found.get(part, 0), count) for part, (_, count) in counts.items()}
            classes = len({label for _, label, _ in rows})
            problems += _differences(record, classes, counts, missing)
    return Report(record, folder, entries, classes, counts, tuple(missing), tuple(problems))


def _differences(record: Benchmark, classes: int, counts: dict[str, tuple[int, int]], missing: list[str]) -> list[str]:
    problems = []
    if missing:
        problems.append(f"{len(missing)} images are missing, the first {missing[0]}")
        problems += [
            f"none of the {count} {part} images is there" for part, (found, count) in counts.items() if not found
        ]
    if classes != record.classes:
        problems.append(f"{classes} classes of {record.classes}")
    for part, (found, count) in counts.items():
        if found != count and not missing:
            problems.append(f"{found} {part} images, published are {count}")
    return problems
