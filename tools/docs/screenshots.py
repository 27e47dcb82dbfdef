"""The gallery's report and its pictures: `python -m tools.docs.screenshots report.html`; needs playwright and chromium.

What is in docs/site is of a set of clothes (CC0), ten classes, 16 training photographs of each:

    daptune fit clothing/ --shots 16 --out clothing-adapter
    daptune report clothing-adapter --images clothing/
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

PICTURES = Path(__file__).parents[2] / "docs/site"
PARTS = {
    "report-top": ("", "Training", 1300),
    "report-classes": ("By class", "", 1150),
    "report-mistakes": ("Most confident mistakes", "", 740),
}
"""Name -> the heading that a picture begins at, the one before which it ends or "" for the next, most pixels."""
WIDTH, COLOURS = 1000, 64


def top_of(page: Page, heading: str) -> float:
    return float(page.locator("h2", has_text=heading).first.evaluate("it => it.getBoundingClientRect().top + scrollY"))


def main(report: Path) -> None:
    shutil.copy(report, PICTURES / "report.html")
    with sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=options, timeout=300_000)
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.set_default_timeout(300_000)  # the machine may be busy
        page.goto(report.resolve().as_uri())
        tops = sorted([top_of(page, text) for text in page.locator("h2").all_inner_texts()])
        for name, (first, end, highest) in PARTS.items():
            start = top_of(page, first) if first else 0.0
            stop = top_of(page, end) if end else next((top for top in tops if top > start), tops[-1])
            size = {"x": 0, "y": start, "width": WIDTH, "height": min(stop - start, highest)}
            shot = page.screenshot(full_page=True, clip=size)
            picture = Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS)  # a third of the bytes
            picture.save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
