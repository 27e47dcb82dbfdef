"""One table, three ways of writing it."""

import csv
import io

from daptune.report.html import Html, escape, join, tag
from daptune.report.table import Cell, Table, file_name, mark_best, points, share, signed, text_row

ROWS = mark_best(
    [
        text_row("<b>&_%$", share(0.5, 0.01), points(-0.012, tone="down")),
        text_row("two", share(0.25), Cell("–")),
        text_row("three", share(None), points(0.0)),
    ],
    (1,),
)
TABLE = Table("some", "A caption: 50 %", ("name", "accuracy", "change"), ROWS)


def test_html_escapes_what_users_wrote_and_marks_the_best() -> None:
    text = TABLE.to_html()
    assert "<b>" not in text and "&lt;b&gt;&amp;_%$" in text
    assert '<td class="n best" data-v="50">50.0 ± 1.0</td>' in text
    assert '<td class="n down" data-v="-1.2">−1.2</td>' in text


def test_csv_has_numbers_in_full_and_spreads_beside() -> None:
    rows = list(csv.reader(io.StringIO(TABLE.to_csv())))
    assert rows[0] == ["name", "accuracy", "accuracy sd", "change"]
    assert rows[1] == ["<b>&_%$", "50.0", "1.0", "-1.2"]
    assert rows[2] == ["two", "25.0", "", "–"]


def test_latex_escapes_and_sets_the_best_bold() -> None:
    lines = TABLE.to_latex().splitlines()
    assert lines[0] == "% A caption: 50 \\%" and lines[1] == "\\begin{tabular}{lrr}"
    assert "$<$b$>$\\&\\_\\%\\$ & \\textbf{50.0 $\\pm$ 1.0} & $-$1.2 \\\\" in lines
    assert lines[-1] == "\\end{tabular}"


def test_names_of_files_stay_apart() -> None:
    assert file_name("mean of data sets") == "mean-of-data-sets" and file_name("coop_vpt") == "coop_vpt"
    assert file_name("./a/b").startswith("--a-b-") and file_name("./a/b") != file_name("./a:b")


def test_signs() -> None:
    assert [signed(value) for value in (0.012, -0.012, 0.0001, -0.0001)] == ["+1.2", "−1.2", "±0.0", "±0.0"]


def test_markup_is_safe_by_its_making() -> None:
    assert tag("p", "<i>", title='"x"') == '<p title="&quot;x&quot;">&lt;i&gt;</p>'
    assert tag("p", tag("i", "x")) == "<p><i>x</i></p>"
    assert escape(tag("i") + "<u>") == "&lt;i&gt;&lt;/i&gt;&lt;u&gt;", "added to plain text, it is plain text"
    assert join(["<", Html("<br>")]) == "&lt;<br>"
    assert tag("img", src="x", alt="") == '<img src="x" alt="">'
