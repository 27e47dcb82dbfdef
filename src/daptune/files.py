"""Crash-safe files: atomic replacement, locks, lines of JSON. What others made is read by `daptune.foreign`.

Functions raise OSError; `reason` turns it into text, `told` into an error of ours. Callers check the contents.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from daptune.errors import reason as reason
from daptune.foreign import json_lines as json_lines
from daptune.foreign import read_json as read_json


@contextmanager
def told(error: Callable[[str], Exception]) -> Iterator[None]:
    """Raise `error(reason)`, with what to do next, in place of an OSError of the block."""
    try:
        yield
    except OSError as found:
        raise error(reason(found)) from found


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a sibling of `path` to write to; it replaces `path` at the end, or is removed if the block raises.

    After a crash, `path` is complete: either the old or the new file.
    """
    fresh = path.with_name(f".{path.name}.new")  # a rename is atomic only within a file system
    try:
        yield fresh
        with open(fresh, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write(path: Path, content: bytes) -> None:
    """Replace the contents of `path` atomically."""
    with replacing(path) as fresh:
        fresh.write_bytes(content)


def replace_folder(folder: Path, content: Mapping[str, bytes]) -> None:
    """Write `content` (name -> bytes) as `folder`, through a sibling that is renamed when complete.

    Other files in the old folder are kept. On an OSError the old folder is unchanged.
    """
    fresh, previous = folder.with_name(f".{folder.name}.new-{os.getpid()}"), _previous(folder)
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for name, data in content.items():
            with open(fresh / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            folder.rename(previous)
        try:
            fresh.rename(folder)
        except OSError:
            if previous.exists():
                previous.rename(folder)
            raise
        if previous.is_dir():
            for extra in previous.iterdir():
                if extra.name not in content:
                    extra.rename(folder / extra.name)
            shutil.rmtree(previous, ignore_errors=True)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def present(folder: Path) -> Path:
    """`folder`, or its backup if `replace_folder` was interrupted."""
    backup = _previous(folder.resolve())
    return backup if not folder.exists() and backup.is_dir() else folder


def try_lock(file: IO[Any]) -> bool:
    """Lock the open file until the process ends; False if another process holds the lock.

    Also True without lock support: on Windows, and on file systems without locks.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


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


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere folders cannot be opened, and renaming is durable
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
