"""The pages in headless Chromium: nothing overflows, nothing is said on the console, tables sort."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
SWITCHES = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).is_file():
        pytest.skip(f"no Chromium at {CHROMIUM}; set CHROMIUM to one")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [1280, 768, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("report", ["bench_report", "fit_report"])
def test_a_page_fits_and_is_silent(
    browser: Any, request: pytest.FixtureRequest, report: str, scheme: str, width: int
) -> None:
    path: Path = request.getfixturevalue(report)
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda sent: asked.append(sent.url))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    style = "getComputedStyle(document.body)"
    ink, face = page.evaluate(f"[{style}.color, {style}.backgroundColor]")
    assert (bright(face) > bright(ink)) == (scheme == "light")
    drawn = page.evaluate(
        "getComputedStyle([...document.querySelectorAll('svg text')].find(t => !t.closest('defs'))).fill"
    )
    assert abs(bright(drawn) - bright(face)) > 200, "letters of figures stand out on the page"
    context.close()


SMALLEST = """() => {
  const shown = (text) => text.data.trim() && text.parentElement.closest("script, style, title, defs") === null;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), sizes = [];
  while (walker.nextNode()) {
    if (!shown(walker.currentNode)) continue;
    const own = walker.currentNode.parentElement, scale = own.ownerSVGElement ? own.getScreenCTM() : { a: 1, b: 0 };
    sizes.push(parseFloat(getComputedStyle(own).fontSize) * Math.hypot(scale.a, scale.b));
  }
  return Math.min(...sizes);
}"""
UNREACHED = """() => [...document.querySelectorAll("body *")]
  .filter((it) => /auto|scroll/.test(getComputedStyle(it).overflowX) && it.scrollWidth > it.clientWidth)
  .filter((it) => it.tabIndex < 0 && !it.querySelector("a, button")).map((it) => it.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("report", ["bench_report", "fit_report"])
def test_text_is_readable_and_what_scrolls_takes_the_focus(
    browser: Any, request: pytest.FixtureRequest, report: str, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(request.getfixturevalue(report).as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.wait_for_function("document.querySelector('[tabindex]')") if width == 320 else None
    assert page.evaluate(SMALLEST) >= 11
    assert page.evaluate(UNREACHED) == []
    page.close()


def test_the_contents_stay_and_show_the_place(browser: Any, fit_report: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(fit_report.as_uri())
    assert page.locator("main h2").first.inner_text() == "What to do next"
    page.locator("#labels").evaluate("it => it.scrollIntoView({ behavior: 'instant' })")
    current = page.locator("nav [aria-current]")
    current.wait_for()
    page.wait_for_function("document.querySelector('nav [aria-current]').hash === '#labels'")
    assert page.locator("nav").evaluate("it => it.getBoundingClientRect().top") == 0
    assert page.locator("#labels h2").evaluate("it => it.getBoundingClientRect().top") > 40
    page.close()


def test_tables_sort_by_a_click(browser: Any, fit_report: Path) -> None:
    page = browser.new_page()
    page.goto(fit_report.as_uri())
    recall = "#classes table:has(button:text-is('recall, %'))"
    read = """[...document.querySelectorAll("#classes tbody tr")].map(r => r.cells)
        .filter(c => c.length > 5).map(c => Number(c[3].dataset.v))"""
    ascending = page.evaluate(read)
    assert ascending == sorted(ascending)
    page.locator(recall).get_by_role("button", name="recall, %", exact=True).click()
    assert page.evaluate(read) == sorted(ascending, reverse=True)
    page.close()


def test_without_scripts_everything_is_there(browser: Any, bench_report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(bench_report.as_uri())
    assert page.locator("th button").count() == 0 and page.locator("tbody tr").count() > 50
    context.close()


def bright(colour: str) -> int:
    """Sum of the channels of `rgb(r, g, b)`, 0 to 765."""
    return sum(int(part) for part in colour.strip("rgb()").split(","))
