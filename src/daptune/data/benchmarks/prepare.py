"""Everything of a benchmark data set that can be fetched, put where it belongs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from daptune import files, locks
from daptune.data.benchmarks.fetch import Progress, fetch, forget
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
    with _alone(folder):
        files.clear(folder)
        for download in record.downloads:
            if _present(download, folder):
                _tidy(download, folder)
                steps.append(Step(download, THERE))
                continue
            told = progress(download.file) if progress else None
            try:
                with files.told(partial(_unwritten, download)):
                    _get(download, folder, told, keep)
            except DataError as error:
                steps.append(Step(download, FAILED, str(error)))
            else:
                steps.append(Step(download, DONE))
    return steps


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raises DataError if another process prepares the folder; a new one in which nothing was put is removed."""
    with ExitStack() as held:
        if not folder.exists():
            held.callback(_remove_empty, folder)
        with files.told(lambda why: DataError(f"{folder} cannot be made ({why}); name another --root")):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(locks.lock(folder / ".lock"))
            except locks.Busy as busy:
                raise DataError(f"{busy} prepares {folder}; wait until it ends") from None
        yield


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _unwritten(download: Download, why: str) -> DataError:
    return DataError(f"{download.file} was not put in place ({why}); run the same command to resume.")


def _present(download: Download, folder: Path) -> bool:
    """Whether what a download is for lies there; unpacking puts each part in its place as a whole."""
    targets = [target for _, target in download.unpack] or [download.file]
    return all((_done(download, folder) if target == "." else folder / target).exists() for target in targets)


def _get(download: Download, folder: Path, progress: Progress | None, keep: bool) -> None:
    path = fetch(download, folder / download.file, progress)
    if download.unpack:
        if not keep:
            _unneeded(download, folder).touch()
        unpack(path, folder, download.unpack, download.nested)
        if any(target == "." for _, target in download.unpack):
            _done(download, folder).touch()
        _tidy(download, folder)
    elif path.suffix == ".json" and path.name.startswith("split_zhou_"):
        try:
            load_rows(path)
        except DataError:
            path.unlink()
            raise


def _tidy(download: Download, folder: Path) -> None:
    """Remove an unpacked archive that is not to be kept, also after a kill between the two."""
    if _unneeded(download, folder).exists():
        (folder / download.file).unlink(missing_ok=True)
        _unneeded(download, folder).unlink()
    forget(folder / download.file)


def _unneeded(download: Download, folder: Path) -> Path:
    return folder / f".{download.file}.unneeded"


def _done(download: Download, folder: Path) -> Path:
    return folder / f".{download.file}.unpacked"
