"""Put the lines of code that the pages of the methods name where they are now: `python tools/page_lines.py`."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(\w+)`(?: of `(\w+)\.py`)?, lines (\d+)-(\d+)")


def spans(name: str) -> dict[str, tuple[int, int | None]]:
    """First and last line of each function of a method's file."""
    tree = ast.parse((ROOT / "src/daptune/methods" / f"{name}.py").read_text("utf-8"))
    return {node.name: (node.lineno, node.end_lineno) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def renumbered(page: str, name: str) -> str:
    """The page of the method `name` with every "lines a-b" as its file has them; KeyError for a function gone."""

    def lines(found: re.Match[str]) -> str:
        first, last = spans(found[2] or name)[found[1]]
        return f"{found[0][: found[0].index(', lines ')]}, lines {first}-{last}"

    return NAMED.sub(lines, page)


if __name__ == "__main__":
    for path in sorted((ROOT / "docs/methods").glob("*.md")):
        text = path.read_text("utf-8")
        path.write_text(renumbered(text, path.stem), "utf-8")
