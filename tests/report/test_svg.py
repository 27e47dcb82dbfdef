"""What is drawn is told apart, in the page by the page's colours and in a file by its own."""

import xml.etree.ElementTree as ElementTree

from daptune.report.svg import DARK, ROLES, colour_of, finished, look, panel


def test_no_two_of_many_look_the_same() -> None:
    assert len({look(place) for place in range(64)}) == 64
    labels = ("zero_shot", *(f"method {n}" for n in range(12)), "dapt")
    looks = [colour_of(label, labels, "dapt") for label in labels]
    assert len(set(looks)) == len(labels)
    assert colour_of("dapt", labels, "dapt") == look(0) == colour_of("zero_shot", ("zero_shot",), "zero_shot")


def test_every_colour_has_one_for_the_dark() -> None:
    assert ROLES.keys() == DARK.keys() and len(set(ROLES.values())) == len(ROLES)


def test_a_figure_of_the_page_takes_its_colours_and_one_in_a_file_its_own() -> None:
    with panel() as (drawing, axes):
        axes.plot([0, 1], [0.000123, 0.000456], color=ROLES["s1"])
        axes.set_title("a < b & c")
        figure = finished(drawing, "name", 'say "a"')
    page, file = figure.inline(), figure.file()
    assert "var(--s1)" in page and ROLES["s1"] not in page and "xmlns" not in page
    assert ROLES["s1"] in file and DARK["s1"] in file and "var(--" not in file
    assert "a &lt; b &amp; c" in page and 'aria-label="say &quot;a&quot;"' in page
    root = ElementTree.fromstring(file)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text is not None and text.startswith("0.0001") for text in texts), "numbers in texts stay whole"
    assert all(element.get("id", "name-").startswith("name-") for element in root.iter())
