"""Tables as HTML, CSV and LaTeX."""

import csv
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from daptune.bench.summary import share_text
from daptune.report.html import Html, tag


@dataclass(frozen=True)
class Cell:
    """The displayed text and its numeric value."""

    text: str
    value: float | None = None  # in the unit of the column; written unrounded to CSV and used for sorting
    spread: float | None = None  # standard deviation over seeds; a separate column in CSV
    best: bool = False
    tone: str = ""  # "up" or "down": colour of a difference


@dataclass(frozen=True)
class Table:
    """`name` is the file name without suffix; the first `left` columns are text, the others numbers."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: int = 1
    group: int | None = None  # column whose changes separate groups of rows

    def to_html(self) -> Html:
        """A table in a horizontally scrolling frame."""
        head = tag("tr", *(tag("th", name, scope="col", class_=self._side(i)) for i, name in enumerate(self.columns)))
        body = []
        for above, row in zip((None, *self.rows), self.rows, strict=False):
            new = self.group is not None and above is not None and above[self.group].text != row[self.group].text
            cells = (self._cell(i, cell) for i, cell in enumerate(row))
            body.append(tag("tr", *cells, class_="group" if new else None))
        table = tag("table", tag("thead", head), tag("tbody", *body), aria_label=self.caption)
        frame = tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=self.caption)
        return tag("div", tag("p", self.caption, class_="caption"), frame, class_="table")

    def to_csv(self) -> str:
        spread = [any(row[i].spread is not None for row in self.rows) for i in range(len(self.columns))]
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        head = [(name, f"{name} sd") for name in self.columns]
        body = [[(c.text if c.value is None else _full(c.value), _full(c.spread)) for c in row] for row in self.rows]
        for row in (head, *body):
            pairs = zip(row, spread, strict=True)
            writer.writerow([text for pair, both in pairs for text in (pair if both else pair[:1])])
        return stream.getvalue()

    def to_latex(self) -> str:
        """A tabular for the booktabs package; the best value of a column is bold."""
        sides = "l" * self.left + "r" * (len(self.columns) - self.left)
        head = [f"% {_latex(self.caption)}", f"\\begin{{tabular}}{{{sides}}}", "\\toprule"]
        rows = [_row(text_row(*self.columns)), "\\midrule", *map(_row, self.rows)]
        return "\n".join([*head, *rows, "\\bottomrule", "\\end{tabular}", ""])

    def _side(self, place: int) -> str | None:
        return None if place < self.left else "n"

    def _cell(self, place: int, cell: Cell) -> Html:
        words = filter(None, (self._side(place), "best" if cell.best else "", cell.tone))
        value = None if cell.value is None or math.isnan(cell.value) else f"{cell.value:.6g}"
        if place == 0:
            return tag("th", cell.text, scope="row", data_v=value)
        return tag("td", cell.text, class_=" ".join(words) or None, data_v=value)


def file_name(name: str) -> str:
    """A label as part of a file name; a checksum distinguishes labels that lose characters."""
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name.lower())
    return plain if plain == name.lower().replace(" ", "-") else f"{plain}-{zlib.crc32(name.encode()):08x}"


def text_row(*cells: str | Cell) -> tuple[Cell, ...]:
    return tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells)


NOTHING = Cell("–")


def share(value: float | None, spread: float | None = None) -> Cell:
    """A share in per cent: `54.4 ± 1.8`; None and NaN are a dash."""
    if value is None or math.isnan(value):
        return NOTHING
    known = None if spread is None or math.isnan(spread) else 100 * spread
    return Cell(share_text(value, spread), 100 * value, known)


def number(value: float | None, form: str = "") -> Cell:
    """A number with a format specification; None is a dash."""
    return NOTHING if value is None else Cell(f"{value:{form}}", value)


def points(value: float, *, tone: str = "") -> Cell:
    """A signed difference of shares in percentage points: `+1.2`; NaN is a dash."""
    return NOTHING if math.isnan(value) else Cell(signed(value), 100 * value, tone=tone)


def signed(value: float) -> str:
    """0.012 -> `+1.2`, in percentage points, with a typographic minus sign."""
    text = f"{100 * value:+.1f}"
    return ("±0.0" if text in ("+0.0", "-0.0") else text).replace("-", "−")


def mark_best(rows: Sequence[tuple[Cell, ...]], columns: Sequence[int]) -> tuple[tuple[Cell, ...], ...]:
    """The rows with the highest values of each of `columns` marked."""
    known = {place: [value for row in rows if (value := row[place].value) is not None] for place in columns}
    tops = {place: max(values) for place, values in known.items() if len(values) > 1}
    return tuple(
        tuple(replace(cell, best=cell.value is not None and cell.value == tops.get(i)) for i, cell in enumerate(row))
        for row in rows
    )


def _full(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(round(value, 6))


def _row(cells: Sequence[Cell]) -> str:
    texts = [f"\\textbf{{{_latex(cell.text)}}}" if cell.best else _latex(cell.text) for cell in cells]
    return " & ".join(texts) + " \\\\"


_LATEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "−": "$-$", "–": "--", "<": "$<$", ">": "$>$",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
