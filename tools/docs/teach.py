"""The picture of Teach, docs/teach.png; needs playwright, chromium, and a server of an empty folder:

mkdir served && daptune serve served --backbone tiny
python -m tools.docs.teach http://127.0.0.1:8000/
"""

import io
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from daptune.data.demo import demo_styles, extract_demo

PICTURE = Path(__file__).parents[2] / "docs/teach.png"
LESSON = {
    "fruit": "fruit/banana fruit/blueberries fruit/coconut fruit/grapes fruit/green-apple fruit/lemon bird/dove",
    "bird": "bird/front-facing-baby-chick bird/goose bird/parrot bird/peacock bird/penguin bird/phoenix",
}
"""Class -> the demo's pictures that it is taught with; the dove is in the wrong one."""
TRIED = "fruit/olive bird/turkey clock/alarm-clock clock/eight-thirty tool/axe weather/cloud-with-lightning"
WIDTH, COLOURS = 980, 256


def teach(page: Page, folder: Path) -> None:
    """Make the lesson, train, and drop what is tried."""
    page.get_by_role("tab", name="Teach").click()
    page.get_by_label("Name").fill("food")
    for place, label in enumerate(LESSON, start=1):
        page.get_by_label(f"Class {place}").fill(label)
    page.get_by_role("button", name="Create").click()
    for place, names in enumerate(LESSON.values()):
        card = page.locator("#classes .class").nth(place)
        card.locator("input[type=file]").set_input_files([folder / f"{name}.png" for name in names.split()])
        expect(card.locator(".thumb img")).to_have_count(len(names.split()))
    page.locator("#train").click()
    expect(page.locator("#train-state")).to_have_text("Done. Try it below.")
    page.locator("#step-try input[type=file]").first.set_input_files([folder / f"{name}.png" for name in TRIED.split()])
    expect(page.locator("#lesson-results > li .file")).to_have_count(len(TRIED.split()))
    expect(page.locator("#lesson-results .bars, #lesson-results .unsure-title").last).to_be_visible()


def main(url: str) -> None:
    expect.set_options(timeout=120_000)
    with sync_playwright() as driver, TemporaryDirectory() as made:
        demo = extract_demo(Path(made) / "demo") / demo_styles()[0] / "support"
        for path in list(demo.glob("*/*.webp")):
            Image.open(path).convert("RGB").save(path.with_suffix(".png"))
        options = ["--no-sandbox", "--disable-gpu"]
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        page = browser.new_page(
            viewport={"width": WIDTH + 48, "height": 900}, color_scheme="light", reduced_motion="reduce"
        )
        page.set_default_timeout(120_000)
        page.goto(url)
        teach(page, demo)
        page.wait_for_timeout(1000)  # bars grow
        first, last = page.locator("ol.steps").bounding_box(), page.locator("#step-try").bounding_box()
        assert first is not None and last is not None
        size = first | {"height": last["y"] + last["height"] - first["y"]}
        picture = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=size))).convert("RGB")
        picture.quantize(COLOURS).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
