"""Text of strangers in what daptune prints: escape codes do not reach a terminal, and a long text is shortened."""

import re

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys or that cannot be written: C0 and C1 controls without tab and newline, separators
of lines, changes of direction, lone surrogates."""


def printable(text: object, most: int | None = None) -> str:
    """The text with `UNSAFE` characters as escapes such as `\\x1b`; beyond `most` characters its end is left out."""
    shown = UNSAFE.sub(_escape, str(text))
    return shown if most is None or len(shown) <= most else shown[: max(0, most - 3)] + "..."


def one_line(text: object, most: int = 200) -> str:
    """`printable`, with blanks in place of newlines."""
    return printable(" ".join(str(text).split()), most)


def printable_json(text: str) -> str:
    """A JSON text in which `UNSAFE` characters, which only its strings can hold, are JSON's own escapes."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
