"""Figures by matplotlib as SVG, for the page and as files.

They are drawn in the colours of a light page. In the page these become CSS variables; a file has a media query that
replaces them in dark mode and is ignored by programs that do not support it.
"""

import io
import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from daptune.errors import extra
from daptune.report.html import Html, escape, tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

_STYLE = tomllib.loads(files("daptune.report").joinpath("style.toml").read_text("utf-8"))
ROLES: dict[str, str] = _STYLE["light"]
DARK: dict[str, str] = _STYLE["dark"]
INK, SOFT, RULE, FACE, *SERIES = ROLES.values()
UP, DOWN = SERIES[:2]
MARKERS = "osD^vPX*"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
WIDTH, HEIGHT = 4.4, 3.3  # size of a panel in inches: as wide as a phone, so that its text is readable there
UNITS = 72  # of an SVG by matplotlib, in an inch
SMALLEST = 11  # units of the smallest text
LEAST_SPAN = 25.0  # points of accuracy that an axis shows at least: two points more must not look like twice as much


@dataclass(frozen=True)
class Figure:
    """A finished figure. `name` is its file name without suffix, `label` its text for screen readers."""

    name: str
    label: str
    svg: str  # cleaned output of matplotlib, in the colours of a light page
    width: float = WIDTH  # inches

    def inline(self) -> Html:
        """For the page: with CSS variables as colours, and without external addresses."""
        text = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", self.svg)
        for size in ("width", "height"):
            text = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", text, count=1)
        text = text.replace("xlink:href", "href")
        for role, colour in ROLES.items():
            text = text.replace(colour, f"var(--{role})")
        # a unit, 1/72 inch, is at least a pixel: what is wider than the screen scrolls, and no text becomes too small
        size = f"max-width: {5.6 * self.width:.0f}rem; min-width: {math.ceil(UNITS * self.width)}px"
        attributes = f'role="img" aria-label="{escape(self.label)}" style="{size}"'
        return tag("figure", Html(text.replace("<svg", f"<svg {attributes}", 1)))

    def file(self) -> str:
        """A stand-alone file that supports dark mode."""
        swap = "".join(
            f'[style*="fill: {light}"]{{fill:{DARK[role]}!important}}'
            f'[style*="stroke: {light}"]{{stroke:{DARK[role]}!important}}'
            for role, light in ROLES.items()
        )
        style = f"<style>@media (prefers-color-scheme: dark){{svg{{background:{DARK['face']}}}{swap}}}</style>"
        return self.svg.replace("<defs>", f"<title>{escape(self.label)}</title>{style}<defs>", 1)


@contextmanager
def panel(width: float = WIDTH, height: float = HEIGHT) -> "Iterator[tuple[Drawing, Axes]]":
    """A drawing with axes; call `finished` inside the block. Raises MissingExtraError without matplotlib."""
    with extra("report", "figures need matplotlib"):
        import matplotlib
        from matplotlib.figure import Figure as Drawing
    with matplotlib.rc_context({key: ROLES.get(str(value), value) for key, value in _STYLE["matplotlib"].items()}):
        drawing = Drawing(figsize=(width, height), layout="constrained")
        yield drawing, drawing.add_subplot()


def finished(drawing: "Drawing", name: str, label: str) -> Figure:
    """The reproducible SVG of a drawing."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        drawing.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r"font: ([^;\"']*?)([\d.]+px) [^;\"]*", rf"font: \1\2 {FONT}", text)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\1{name}-", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # round coordinates to a hundredth of a point, but not numbers in texts
    lines = [line if "<text" in line else re.sub(r"(\d\.\d{2})\d+", r"\1", line) for line in lines]
    return Figure(name, label, "\n".join(lines), drawing.get_size_inches()[0])


def rows_of(axes: "Axes", names: Sequence[str], title: str, measure: str, *, bold: str | None = None) -> None:
    """Label the rows of horizontal charts with `names`, from the bottom."""
    axes.set_yticks(range(len(names)), names)
    for text in axes.get_yticklabels():
        text.set(color=INK, fontweight="bold" if text.get_text() == bold else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_title(title)
    axes.set_xlabel(measure)


def span_of_accuracies(values: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis that shows accuracies in per cent, at least `LEAST_SPAN` of them, within 0 and 100."""
    low, high = min(values), max(values)
    room = max(0.08 * (high - low), (LEAST_SPAN - (high - low)) / 2)
    low, high = low - room, high + room
    shift = max(0.0, -low) - max(0.0, high - 100)
    return max(0.0, low + shift), min(100.0, high + shift)


def look(place: int) -> tuple[str, str]:
    """(colour, marker) of item `place`; the first 64 are distinct."""
    return SERIES[place % len(SERIES)], MARKERS[(place + place // len(SERIES)) % len(MARKERS)]


def colour_of(label: str, labels: tuple[str, ...], focus: str) -> tuple[str, str]:
    """(colour, marker) of a method: the first for the focus, grey for zero-shot, then in the order of `labels`."""
    if label == "zero_shot" != focus:
        return SOFT, "_"
    return look(0 if label == focus else 1 + [name for name in labels if name not in (focus, "zero_shot")].index(label))
