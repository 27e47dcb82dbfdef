"""A page from its sections: one self-contained HTML file, and a folder with figures and tables."""

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from daptune.errors import DataError
from daptune.files import reason, told, write
from daptune.report.html import Html, tag
from daptune.report.step import Step
from daptune.report.svg import DARK, ROLES, Figure
from daptune.report.table import Table

NEXT = "What to do next"


@dataclass(frozen=True)
class Section:
    """A section of a page, in the order of its fields; figures are side by side if there is room."""

    anchor: str
    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    caption: str = ""  # caption of all figures
    tables: Sequence[Table] = ()
    more: Sequence[Html] = ()
    folded: Sequence[Table] = ()  # collapsed tables
    files: Sequence[Table] = ()  # CSV files beside the page

    def to_html(self) -> Html:
        parts: list[str] = [tag("h2", self.title)]
        if self.text:
            parts.append(self.text if isinstance(self.text, Html) else tag("p", kept(self.text)))
        if self.figures:
            wide = "panels" if len(self.figures) > 1 else "panels one"
            parts.append(tag("div", *(figure.inline() for figure in self.figures), class_=wide))
        if self.figures and self.caption:
            parts.append(tag("p", kept(self.caption), class_="caption"))
        parts += [table.to_html() for table in self.tables]
        parts += [tag("details", tag("summary", table.caption), table.to_html()) for table in self.folded]
        return tag("section", *parts, *self.more, id=self.anchor)


@dataclass(frozen=True)
class Page:
    """A whole report. `says` are its findings in sentences, the main result first."""

    title: str
    about: str
    says: Sequence[str]
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = ()  # names and values for the header
    overview: Figure | None = None
    steps: Sequence[Step] = ()  # what to do next, first on the page

    def to_html(self, files: str) -> Html:
        """The document; `files` is the name of its folder of figures and tables."""
        script = _resource("page.js")
        policy = (
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
            f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        )
        steps, rest = "", [kept(line) for line in self.says[1:]]
        titles = {section.anchor: section.title for section in self.sections}
        if rest:
            titles = {"says": "Findings"} | titles
        if self.steps:
            titles = {"next": NEXT} | titles
            steps = tag("section", tag("h2", NEXT), tag("ol", *(it.to_html() for it in self.steps)), id="next")
        links = [tag("li", tag("a", title, href=f"#{anchor}")) for anchor, title in titles.items()]
        facts = [tag("div", tag("dt", name), tag("dd", value)) for name, value in self.facts]
        head = tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=policy),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", self.title),
            tag("style", _style()),
        )
        result = tag("p", kept(self.says[0]), class_="verdict") if self.says else Html()
        glance = tag("div", self.overview.inline(), class_="glance") if self.overview else Html()
        header = tag(
            "header",
            tag("p", self.about, class_="about"),
            tag("h1", self.title),
            tag("div", tag("div", result, tag("dl", *facts, class_="facts")), glance, class_="result"),
        )
        says = [tag("ul", *(tag("li", line) for line in rest), class_="says")] if rest else []
        summary = tag("section", tag("h2", "Findings"), *says, id="says") if says else Html()
        nav = tag("nav", tag("ol", *links), aria_label="Contents")
        foot = tag("footer", tag("p", f"Every figure (SVG) and table (CSV, LaTeX) is a file in {files}/."))
        main = tag("main", steps, summary, *(section.to_html() for section in self.sections), foot)
        body = tag("body", tag("div", header, nav, main, class_="frame"), tag("script", Html(script)))
        return Html("<!doctype html>\n" + tag("html", head, body, lang="en") + "\n")


def kept(text: str) -> str:
    """The text with non-breaking spaces before per cent signs."""
    return text.replace(" %", "\u00a0%")


def check_out(out: Path) -> Path:
    """The expanded path; its folder is created. Raises DataError if no page can be written there."""
    out = out.expanduser()
    if out.is_dir() or out.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"--out must name an HTML file, such as report.html; found {str(out)!r}")
    with told(lambda why: DataError(f"{out.parent} cannot be created: {why}; name another file with --out")):
        out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise DataError(f"{out.parent} cannot be written to; name another file with --out")
    return out


def write_page(page: Page, out: Path) -> list[Path]:
    """Write the page as `out`, and its figures and tables to a folder named `<out>-files`; returns all paths.

    Each file is written atomically. Raises DataError if a file cannot be written.
    """
    out = check_out(out)
    folder = out.with_name(out.stem + "-files")
    content: dict[Path, str] = {}
    figures = [page.overview] if page.overview else []
    for section in page.sections:
        figures += section.figures
        for table in (*section.tables, *section.folded):
            content[folder / f"{table.name}.csv"] = table.to_csv()
            content[folder / f"{table.name}.tex"] = table.to_latex()
        content |= {folder / f"{table.name}.csv": table.to_csv() for table in section.files}
    content |= {folder / f"{figure.name}.svg": figure.file() for figure in figures}
    content[out] = page.to_html(folder.name)
    for path, text in content.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, text.encode())
        except OSError as error:
            raise DataError(f"{path} cannot be written: {reason(error)}; name another file with --out") from error
    return list(content)


def _style() -> Html:
    light, dark = ("".join(f"--{role}:{colour};" for role, colour in colours.items()) for colours in (ROLES, DARK))
    dark_rule = f"@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}"  # not for print
    return Html(f":root{{{light}}}{dark_rule}\n{_resource('page.css')}")


def _resource(name: str) -> str:
    return resources.files("daptune.report").joinpath(name).read_text("utf-8")
