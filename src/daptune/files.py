"""Crash-safe files: atomic replacement, what a crash left. What others made is read by `daptune.foreign`.

While NAME is being replaced, `.NAME.new` and `.NAME.previous` stand beside it. Their writer holds a lock that ends with
it (`daptune.locks`), so those of a dead process are known: whoever opens NAME finishes or clears them.

Functions raise OSError; `reason` turns it into text, `told` into an error of ours. Callers check the contents.
"""

import contextlib
import errno
import glob
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daptune import locks
from daptune.errors import reason as reason
from daptune.foreign import json_lines as json_lines
from daptune.foreign import read_json as read_json

WAIT = 60.0
"""Seconds that a writer waits for another one of the same file or folder."""
PATIENCE = 5.0
"""Seconds that a reader waits for a folder which is just being replaced."""
_LEFT = re.compile(r"\.(.+)\.(?:new(?:-\d+)?|previous|lock)", re.DOTALL)


@contextmanager
def told(error: Callable[[str], Exception]) -> Iterator[None]:
    """Raise `error(reason)`, with what to do next, in place of an OSError of the block."""
    try:
        yield
    except OSError as found:
        raise error(reason(found)) from found


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a sibling of `path`, `.NAME.new`, to write to; it replaces `path` at the end, or is removed on an error.

    After a crash, `path` is complete: either the old or the new file. The sibling of a process that died is used by the
    next writer, and removed by `clear`; that of a live one is waited for. durable: also after a power cut.
    """
    fresh = path.with_name(f".{path.name}.new")  # a rename is atomic only within a file system
    try:
        handle = locks.open_alone(fresh, wait=WAIT)
    except locks.Busy as busy:
        raise OSError(errno.EBUSY, f"{busy} is writing it", str(path)) from busy
    try:
        yield fresh
        if durable:
            with open(fresh, "r+b") as file:
                os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    finally:
        if handle is not None:
            os.close(handle)
    if durable:
        _sync_folder(path.parent)


def write(path: Path, content: bytes) -> None:
    """Replace the contents of `path` atomically."""
    with replacing(path) as fresh:
        fresh.write_bytes(content)


def append(file: io.FileIO, content: bytes, *, durable: bool = True) -> None:
    """Append to an unbuffered file: all of `content`, or on an OSError nothing of it."""
    end = file.seek(0, os.SEEK_END)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        if durable:
            os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` to work in, removed at the end; one that a dead process left is emptied first."""
    with _alone(path):
        fresh = path.with_name(f".{path.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        try:
            yield fresh
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def replace_folder(folder: Path, content: Mapping[str, bytes]) -> None:
    """Write `content` (name -> bytes) as `folder`, through a sibling that is renamed when complete.

    Other files in the old folder are kept. On an error the old folder is unchanged. A process that dies between the
    renames leaves the old folder as `.NAME.previous`: `recovered` puts it back.
    """
    with _alone(folder):
        _recover(folder)
        with scratch(folder) as fresh:
            for name, data in content.items():
                with open(fresh / name, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            _sync_folder(fresh)
            _swap(fresh, folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it: after a crash it is there as a whole, or not at all."""
    with _alone(folder):
        fresh = folder.with_name(f".{folder.name}.new")  # as of an unfinished replacement: `recovered` removes it
        shutil.rmtree(fresh, ignore_errors=True)
        folder.rename(fresh)
        shutil.rmtree(fresh, ignore_errors=True)


def recovered(folder: Path) -> Path:
    """`folder`, once what a dead process left of its replacement is finished or cleared. For all who open one.

    Where nothing can be changed, such as on a read-only disk, the old folder under its other name. What a live process
    writes is left alone.
    """
    place = folder.resolve()
    if any(map(os.path.lexists, (_previous(place), *_unfinished(place)))):
        with contextlib.suppress(OSError), _alone(place, wait=0 if folder.exists() else PATIENCE) as real:
            if real:
                _recover(place)
    backup = _previous(place)
    return backup if not folder.exists() and backup.is_dir() else folder


def clear(folder: Path, *, files: bool = True) -> None:
    """`recovered` for all in a folder, and without `files` for folders alone: half-written files are removed too.

    What a live process writes is left alone.
    """
    places: set[Path] = set()
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        places = {folder / match[1] for entry in entries if (match := _LEFT.fullmatch(entry.name))}
    for place in sorted(places):
        recovered(place)
        fresh = place.with_name(f".{place.name}.new")
        with contextlib.suppress(OSError):
            if files and fresh.is_file() and not locks.is_held(fresh):
                fresh.unlink()


def json_line(value: object) -> str:
    """A value as one line of a .jsonl file. Raises ValueError for NaN and infinity, which JSON lacks."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def difference(saved: Any, now: Any, where: str = "") -> str | None:
    """The first difference between two JSON values, or None: "train.lr is 0.1 there and 0.2 now"."""
    if isinstance(saved, dict) and isinstance(now, dict):
        for key in [*saved, *(k for k in now if k not in saved)]:
            path = f"{where}.{key}" if where else str(key)
            if found := difference(saved.get(key), now.get(key), path):
                return found
        return None
    if isinstance(saved, list) and isinstance(now, list):
        if len(saved) != len(now):
            return f"{where} has {len(saved)} entries there and {len(now)} now"
        pairs = enumerate(zip(saved, now, strict=True))
        return next((text for i, (a, b) in pairs if (text := difference(a, b, f"{where}[{i}]"))), None)
    return None if saved == now else f"{where} is {saved!r} there and {now!r} now"


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _unfinished(folder: Path) -> list[Path]:
    """What a replacement leaves besides the old folder; with a number at the end by earlier versions."""
    earlier = folder.parent.glob(f".{glob.escape(folder.name)}.new-*")
    return [folder.with_name(f".{folder.name}.{end}") for end in ("new", "lock")] + list(earlier)


@contextmanager
def _alone(path: Path, wait: float | None = None) -> Iterator[bool]:
    """Hold the lock of all who replace `path`. Raises OSError if another process does; yields whether locks exist."""
    try:
        with locks.lock(path.with_name(f".{path.name}.lock"), wait=WAIT if wait is None else wait, again=True) as real:
            yield real
    except locks.Busy as busy:
        raise OSError(errno.EBUSY, f"{busy} is writing it", str(path)) from busy


def _recover(folder: Path) -> None:
    """Remove what is unfinished; put the old folder back, or what else was in it into the new one. Needs `_alone`."""
    for fresh in _unfinished(folder):
        if fresh.is_dir():
            shutil.rmtree(fresh, ignore_errors=True)
    previous = _previous(folder)
    if previous.is_dir():
        if folder.exists():
            _take_over(previous, folder)
        else:
            previous.rename(folder)


def _swap(fresh: Path, folder: Path) -> None:
    """Rename `fresh` to `folder`, and keep what else was in the old one."""
    previous = _previous(folder)
    if folder.exists():
        folder.rename(previous)
    try:
        fresh.rename(folder)
    except BaseException:
        if previous.exists():
            previous.rename(folder)
        raise
    with contextlib.suppress(OSError):  # whoever opens the folder next goes on
        _sync_folder(folder.parent)
        _take_over(previous, folder)


def _take_over(previous: Path, folder: Path) -> None:
    """Move what the new folder lacks from the old one, and remove the old one."""
    if previous.is_dir():
        for extra in previous.iterdir():
            if not os.path.lexists(folder / extra.name):
                extra.rename(folder / extra.name)
        shutil.rmtree(previous, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere folders cannot be opened, and renaming is durable
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
