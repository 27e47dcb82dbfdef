"""Files of others are opened only if they are regular: a FIFO, a socket or a device can wait for ever, or never end."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # each system has one of them
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: Path) -> None:
    """Raise OSError unless `path` is a regular file, links followed; before a library opens it."""
    _refuse(os.stat(path).st_mode, path)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading. Raises OSError, also for a file of another kind, which is not opened."""
    check_regular(path)  # opening a device may already do something
    handle = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        _refuse(os.fstat(handle).st_mode, path)  # another file may have taken its place
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path) -> bytes:
    """The content of a regular file. Raises OSError."""
    with open_regular(path) as file:
        return file.read()


def _refuse(mode: int, path: Path) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = _KINDS.get(stat.S_IFMT(mode), "something else")
    raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
