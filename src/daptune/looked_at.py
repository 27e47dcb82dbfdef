"""Which files passed a first look (`isolated.try_first`): a list in the user's cache, so that it is not repeated.

A line is a digest of the look, of the packages that are installed, and of what the system says of the file: device,
inode, size and times. No program can set the time of the last change of the inode, so a file that was written to since,
or another one under its name, has another line. Neither names nor contents are kept.
"""

import hashlib
import os
import sysconfig
from contextlib import suppress
from pathlib import Path

from daptune.files import replacing

MOST = 1_000
"""Lines that are kept, the latest."""
LONGEST = 1 << 20
"""Bytes of a list that is read; a longer one is not ours."""


def line_of(*look: object, path: str) -> str | None:
    """The line of a file for a look; None where the system says nothing of it."""
    try:
        file, packages = os.stat(path), os.stat(sysconfig.get_path("purelib")).st_mtime_ns  # of an upgrade, too
    except (OSError, ValueError):
        return None
    said = (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns)
    return hashlib.sha256(repr((look, packages, said)).encode("utf-8", "backslashreplace")).hexdigest()


def passed(line: str) -> bool:
    """Whether the list has it."""
    return line in _lines()


def note_passed(line: str) -> None:
    """Add it to the list; where the cache cannot be written, the file is looked at again next time."""
    with suppress(OSError):
        place = _list()
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place, durable=False) as fresh:
            fresh.write_text("".join(f"{each}\n" for each in [*_lines(), line][-MOST:]))


def _lines() -> list[str]:
    try:
        with open(_list(), "rb") as file:
            return file.read(LONGEST).decode("ascii", "replace").split()
    except OSError:
        return []


def _list() -> Path:
    """In `XDG_CACHE_HOME`, or `~/.cache`. Raises OSError without one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if not cache.is_absolute():  # a user without a home
        raise FileNotFoundError(cache)
    return cache / "daptune" / "looked-at"
