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
    "report-top": ("", "Training"),
    "report-classes": ("By class", ""),
    "report-mistakes": ("Most confident mistakes", ""),
}
WIDTH, HIGHEST, COLOURS = 1000, 1150, 64


def top_of(page: Page, heading: str) -> float:
    return float(page.locator("h2", has_text=heading).first.evaluate("it => it.getBoundingClientRect().top + scrollY"))


def main(report: Path) -> None:
    shutil.copy(report, PICTURES / "report.html")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        tops = sorted([top_of(page, text) for text in page.locator("h2").all_inner_texts()])
        for name, (first, end) in PARTS.items():
            start = top_of(page, first) if first else 0.0
            stop = top_of(page, end) if end else next((top for top in tops if top > start), tops[-1])
            size = {"x": 0, "y": start, "width": WIDTH, "height": min(stop - start, HIGHEST)}
            shot = page.screenshot(full_page=True, clip=size)
            picture = Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS)  # a third of the bytes
            picture.save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
