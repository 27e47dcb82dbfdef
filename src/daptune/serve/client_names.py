"""Names that come from a client and end up as names of folders: never a path."""

import re

from daptune.serve.limits import Refused

IMAGES_SUFFIX = ".images"
"""Behind the name of an adapter: the folder of what it was taught with."""
_NAME = re.compile(r"\w(?:[\w .+-]{0,62}[\w+-])?")
_SIGNS = r"/\\\x00-\x1f\x7f<>:\"|?*"  # what some system does not allow in the name of a folder
_CLASS = re.compile(rf"[^\s.{_SIGNS}](?:[^{_SIGNS}]{{0,62}}[^\s.{_SIGNS}])?")
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def is_name(name: str) -> bool:
    """Whether an adapter may be called so."""
    return bool(_NAME.fullmatch(name)) and not name.lower().endswith(IMAGES_SUFFIX) and not _is_device(name)


def check_name(name: str) -> str:
    """`name`, if an adapter may be called so; else `Refused` 422."""
    if is_name(name):
        return name
    raise Refused(
        422, f"expected a name of 1 to 64 letters, digits, spaces and . + - _ that is no path, found {name[:80]!r}."
    )


def check_class(name: str) -> str:
    """`name`, if a class may be called so; else `Refused` 422."""
    if _CLASS.fullmatch(name) and not _is_device(name):
        return name
    raise Refused(
        422,
        f"expected a class name of 1 to 64 signs without / \\ : * ? < > | and quotes, found {name[:80]!r}.",
    )


def _is_device(name: str) -> bool:
    return name.lower().partition(".")[0] in _DEVICES
