"""A layer under the file-system calls of a process: it counts those that change a folder, and ends or fails one.

Counted are: open for writing, write, fsync, truncate, rename and replace, mkdir, rmdir, unlink, link and symlink, below
one folder. Calls of C++ code, such as pyarrow's, are not seen. For forked children: nothing is put back.
"""

import builtins
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = {
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate",
}  # fmt: skip
NEEDS_ROOM = {"open", "write", "fsync", "os.mkdir", "os.link", "os.symlink"}


class Faults:
    """Counts calls below `folder`; at call `at` (from 1) the process is killed, or from it on the disk is full.

    A killed or failed write leaves half of its bytes.
    """

    def __init__(self, folder: Path, at: int = 0, *, full: bool = False) -> None:
        self.folder, self.at, self.full = os.path.realpath(folder), at, full
        self.calls: list[str] = []
        self._open, self._fsync, self._write = io.open, os.fsync, os.write
        self._within = False  # our own calls are not counted

    def install(self) -> None:
        """From now on all calls of this process pass through here."""
        io.open = builtins.open = self._opened  # type: ignore[assignment]
        os.fsync, os.write = self._synced, self._written  # type: ignore[assignment]
        sys.addaudithook(self._heard)

    def tick(self, call: str, path: object, half: Callable[[], object] = lambda: None) -> None:
        """A call that changes `path`; `half` does half of it."""
        place = os.path.realpath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ""
        if self._within or not place.startswith(self.folder + os.sep):
            return
        self.calls.append(f"{call} {place[len(self.folder) + 1 :]}")
        number = len(self.calls)
        if not self.full and number == self.at:
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.full and 0 < self.at <= number and call in NEEDS_ROOM:
            half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), None if call == "write" else place)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES and not self._within:
            path = arguments[0]
            folder = next((each for each in arguments[1:] if isinstance(each, int) and each >= 0), None)
            if event in ("os.remove", "os.rmdir") and folder is not None and not os.path.isabs(path):
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
            self.tick(event, path if isinstance(path, str | bytes | os.PathLike) else _name(path))
        elif event == "open" and not self._within:
            path, mode, flags = arguments
            if mode is None and flags & os.O_CREAT and not isinstance(path, int):  # os.open; others come by `_opened`
                self.tick("open", path)

    def _opened(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if not set(mode) & set("wax+"):
            return self._open(file, mode, *args, **kwargs)
        self.tick("open", file if not isinstance(file, int) else _name(file))
        return _File(self, self._open(file, mode, *args, **kwargs), file if not isinstance(file, int) else _name(file))

    def _synced(self, handle: Any) -> None:
        self.tick("fsync", _name(handle if isinstance(handle, int) else handle.fileno()))
        self._fsync(handle)

    def _written(self, handle: int, data: Any) -> int:
        self.tick("write", _name(handle), lambda: self._write(handle, bytes(data)[: len(data) // 2]))
        return self._write(handle, data)


class _File:
    """An open file whose writes are counted."""

    def __init__(self, faults: Faults, file: Any, path: Any) -> None:
        self._faults, self._file, self._path = faults, file, path

    def write(self, data: Any) -> Any:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._faults.tick("write", self._path, half)
        return self._file.write(data)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def truncate(self, *size: int) -> Any:
        self._faults.tick("truncate", self._path)
        return self._file.truncate(*size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Any:
        return iter(self._file)

    def __enter__(self) -> "_File":
        self._file.__enter__()
        return self

    def __exit__(self, *about: Any) -> Any:
        return self._file.__exit__(*about)


def _name(handle: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{handle}")
    except OSError:
        return ""
