"""What a browser would make of a page, without one: its elements in order, and what it would load."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "hr", "input", "link", "col"}


class Elements(HTMLParser):
    """Every element with its attributes; `errors` tells of ends that do not fit."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.errors: list[str] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.errors += [f"never closed: {name}" for name in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.errors.append(f"closed out of turn: {tag} at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def outside(text: str) -> list[str]:
    """Addresses that a page would load or lead to beyond itself."""
    values = re.findall(r'(?:src|href|action|poster|srcset|data)\s*=\s*"([^"]*)"', text)
    values += re.findall(r"url\(([^)]*)\)|@import\s+([^;]*)", text) and [
        "".join(pair) for pair in re.findall(r"url\(([^)]*)\)|@import\s+([^;]*)", text)
    ]
    bad = [value for value in values if not value.strip("'\"").startswith(("#", "data:image/"))]
    return bad + re.findall(r"https?:[^\s\"'<]*|//[a-z0-9.-]+\.[a-z]{2,}[^\s\"'<]*", text)


def table(report: Path, name: str) -> list[dict[str, str]]:
    """A table of the folder beside a page."""
    with open(report.with_name(f"{report.stem}-files") / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
