"""Words that are checked before torch is imported, which takes seconds."""

import re
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import daptune
from daptune.errors import MethodError, suggest
from daptune.names import plain_key

_NAMED = re.compile(r'^    name = "(\w+)"', re.MULTILINE)


@cache
def own_methods() -> frozenset[str]:
    """The names of daptune's methods, as their files say; empty where the package is no folder."""
    files = (Path(daptune.__file__).parent / "methods").glob("*.py")
    return frozenset(name for file in files for name in _NAMED.findall(file.read_text("utf-8")))


def check_method(word: str) -> None:
    """Raise MethodError, as `daptune.methods.get_method` does; words that a plug-in may know are left to it."""
    known = own_methods()
    fits = word == "auto" or plain_key(word) in {plain_key(name) for name in known}
    if known and not fits and not entry_points(group="daptune.methods"):
        raise MethodError(f"There is no method {word!r}.{suggest(word, known)}")
