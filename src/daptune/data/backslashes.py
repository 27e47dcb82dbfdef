"""Paths with backslashes, as Windows writes them, in tables and lists that are read elsewhere."""

import os
from collections.abc import Iterable
from pathlib import Path

CAUSE = "its paths have backslashes, as Windows writes them, and with slashes there is no such file either"
"""Why images are not found, for a message."""


def with_slashes(root: Path, text: str) -> Path:
    """The file `root / text`; where only the one with slashes in place of backslashes exists, that one."""
    path = root / text
    if not has_backslashes([text]) or path.exists():
        return path
    other = root / text.replace("\\", "/")
    return other if other.exists() else path


def has_backslashes(texts: Iterable[str]) -> bool:
    """Whether one has a backslash where these divide no folders."""
    return os.sep != "\\" and any("\\" in text for text in texts)
