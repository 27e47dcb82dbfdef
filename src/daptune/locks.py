"""Locks between processes that end with their process, however it ends: `flock` on a small file that names its holder.

Windows and some network file systems have no such locks. Every lock is granted there.
"""

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PAUSE = 0.02
"""Seconds between two tries."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
_ours: dict[str, int] = {}
"""Path of each lock file that this process holds, with the thread that took it."""
_guard = threading.Lock()


class Busy(Exception):
    """Another process, or this one elsewhere, holds the lock; the text names it."""


@contextmanager
def lock(path: Path, *, wait: float = 0.0, again: bool = False) -> Iterator[bool]:
    """Hold the lock file `path` inside; it is removed at the end. Yields whether there are locks on this file system.

    again: a thread that holds it already may take it once more. Raises Busy if it is held after `wait` seconds, OSError
    if the file cannot be made.
    """
    key, me, until = os.path.realpath(path), threading.get_ident(), time.monotonic() + wait
    while True:
        with _guard:
            holder = _ours.get(key)
            if holder is None:
                _ours[key] = me
                break
        if again and holder == me:
            yield True
            return
        if time.monotonic() >= until:
            raise Busy("this process")
        time.sleep(_PAUSE)
    try:
        handle, real = _taken(path, until)
        try:
            with suppress(OSError):  # a full disk: nobody can read who holds it, but it is held
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid()} {socket.gethostname()}\n".encode())
            yield real
        finally:
            if real:  # removed while it is held: who opened it meanwhile sees that it is gone
                with suppress(OSError):
                    os.unlink(path)
            os.close(handle)
            if not real:  # Windows removes no open file
                with suppress(OSError):
                    os.unlink(path)
    finally:
        with _guard:
            del _ours[key]


def open_alone(path: Path, *, wait: float) -> int | None:
    """Create or open `path` for writing, held by this process until the descriptor is closed, and empty it.

    None without locks: the file is there, and not open. Raises Busy if it is held after `wait` seconds.
    """
    handle, real = _taken(path, time.monotonic() + wait)
    os.ftruncate(handle, 0)
    if real:
        return handle
    os.close(handle)
    return None


def is_held(path: Path) -> bool:
    """Whether a live process holds the existing file `path`. Raises OSError if it cannot be opened."""
    handle = os.open(path, os.O_RDWR)
    try:
        return not _try(handle)
    except _Unsupported:
        return True  # nobody can tell
    finally:
        os.close(handle)


def _taken(path: Path, until: float) -> tuple[int, bool]:
    """An open, locked descriptor of `path`, and whether locks exist."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                mine = _try(handle)
            except _Unsupported:
                return handle, False
            if mine and _is(handle, path):
                return handle, True
            if not mine and time.monotonic() >= until:
                raise Busy(_holder(handle))
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if not mine:
            time.sleep(_PAUSE)


def _is(handle: int, path: Path) -> bool:
    """Whether `path` still names the open file: its last holder may have removed or renamed it."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> str:
    pid, _, host = os.pread(handle, 300, 0).decode("utf-8", "replace").strip().partition(" ")
    if not pid.isdecimal():
        return "another process"
    return f"process {pid}" + ("" if host == socket.gethostname() else f" on {host!a}")


class _Unsupported(Exception):
    """There are no locks here."""


def _try(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:
        raise _Unsupported from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise _Unsupported from None
        raise
    return True
