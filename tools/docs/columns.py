"""Docstrings for the site: lists in two columns become tables.

    class_weight    weights of the classes in the loss: "auto" by inverse frequency, or numbers by
                    class name; None: 1

reads well in an editor and would run together in HTML; so do lines of `argument: what it is`. Beside the functions this
file is an extension of griffe, which mkdocstrings loads.
"""

import re
from collections.abc import Collection

ENTRY = re.compile(r"(?P<name>\S+(?: \S+)*?)(?P<gap> {2,})(?P<text>\S.*)")
ARGUMENT = re.compile(r"(?P<name>\w+): (?P<text>\S.*)")
Rows = list[tuple[str, list[str]]]


def tabled(text: str, arguments: Collection[str] = ()) -> str:
    """Markdown of a docstring without common indentation; `arguments` are those of the function, or attributes."""
    return "\n\n".join(_paragraph(part.strip("\n"), arguments) for part in re.split(r"\n[ ]*\n", text))


def _paragraph(text: str, arguments: Collection[str]) -> str:
    lines = text.splitlines()
    if not lines or lines[0].startswith("    "):  # code
        return text
    return _columns(lines) or _arguments(lines, arguments) or text


def _columns(lines: list[str]) -> str | None:
    """The lines as a table, or None if they are not in two columns."""
    first = ENTRY.fullmatch(lines[0])
    if first is None:
        return None
    column = first.start("text")
    rows: Rows = []
    for line in lines:
        if line.startswith("    "):
            rows[-1][1].append(line.strip())
        elif entry := ENTRY.fullmatch(line):
            rows.append((entry["name"], [entry["text"]]))
        elif line[column - 1 : column] == " ":  # a name as long as its column
            rows.append((line[:column].strip(), [line[column:]]))
        else:
            return None
    return _table(rows)


def _arguments(lines: list[str], arguments: Collection[str]) -> str | None:
    """Lines of `argument: text` as a table between what is above and below them, or None without one."""
    above, rows, below = [], [], []
    for line in lines:
        found = ARGUMENT.fullmatch(line)
        if found and found["name"] in arguments and not below:
            rows.append((found["name"], [found["text"]]))
        elif rows and line.startswith("    ") and not below:
            rows[-1][1].append(line.strip())
        else:
            (below if rows else above).append(line)
    parts = ["\n".join(above), _table(rows), "\n".join(below)]
    return "\n\n".join(part for part in parts if part) if rows else None


def _table(rows: Rows) -> str:
    cells = [(_code(name), re.sub(" {2,}", "; ", " ".join(text)).replace("|", "\\|")) for name, text in rows]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in cells)])


def _code(names: str) -> str:
    """`a, b` -> each name as code; words of prose stay."""
    if re.fullmatch(r"[\w.*]+(, [\w.*]+)*", names):
        return ", ".join(f"`{name}`" for name in names.split(", "))
    return names.replace("|", "\\|")


try:
    import griffe
except ImportError:  # the tests need the functions alone
    pass
else:

    class Columns(griffe.Extension):
        """Rewrites every docstring as it is read."""

        def on_object(self, *, obj: griffe.Object, **_: object) -> None:
            if obj.docstring:
                names = (
                    [each.name for each in obj.parameters] if isinstance(obj, griffe.Function) else list(obj.members)
                )
                obj.docstring.value = tabled(obj.docstring.value, names)
