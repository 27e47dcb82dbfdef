"""Everything of a benchmark data set that can be fetched, put where it belongs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from daptune.data.benchmarks.fetch import Progress, fetch
from daptune.data.benchmarks.registry import Benchmark, Download
from daptune.data.benchmarks.unpack import unpack
from daptune.data.zhou import load_rows
from daptune.errors import DataError

DONE, THERE, FAILED = "fetched", "was there", "failed"


@dataclass(frozen=True)
class Step:
    """One download and what became of it; `reason` where it failed."""

    download: Download
    outcome: str
    reason: str = ""


def prepare(
    record: Benchmark, root: Path, progress: Callable[[str], Progress] | None = None, *, keep: bool = False
) -> list[Step]:
    """Fetch what is lacking of a data set into `root/<its folder>`.

    A download that fails does not stop the others. progress: called with a file's name, gives what its bytes are told.
    keep: leave the archives beside what was unpacked.
    """
    folder = root / record.folder
    steps = []
    for download in record.downloads:
        if _present(download, folder):
            steps.append(Step(download, THERE))
            continue
        try:
            _get(download, folder, progress(download.file) if progress else None, keep)
        except DataError as error:
            steps.append(Step(download, FAILED, str(error)))
        else:
            steps.append(Step(download, DONE))
    return steps


def _present(download: Download, folder: Path) -> bool:
    """Whether what a download is for lies there; unpacking puts each part in its place as a whole."""
    targets = [target for _, target in download.unpack] or [download.file]
    return all((_done(download, folder) if target == "." else folder / target).exists() for target in targets)


def _get(download: Download, folder: Path, progress: Progress | None, keep: bool) -> None:
    path = fetch(download, folder / download.file, progress)
    if download.unpack:
        unpack(path, folder, download.unpack, download.nested)
        if any(target == "." for _, target in download.unpack):
            _done(download, folder).touch()
        if not keep:
            path.unlink()
    elif path.suffix == ".json" and path.name.startswith("split_zhou_"):
        try:
            load_rows(path)
        except DataError:
            path.unlink()
            raise


def _done(download: Download, folder: Path) -> Path:
    return folder / f".{download.file}.unpacked"
