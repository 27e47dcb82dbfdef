"""The page in headless Chromium, end to end: classes, pictures, training, prediction, correction, download."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from daptune.data.demo import demo_styles, extract_demo

from ..conftest import COLOURS, save_picture

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason="needs /usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]  # fmt: skip
DROP = """([selector, files]) => {
  const data = new DataTransfer();
  for (const [name, content] of files)
    data.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name, { type: "image/png" }));
  const place = document.querySelector(selector);
  for (const kind of ["dragenter", "dragover", "drop"])
    place.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""
STARTER = """
import sys
import torch
torch.set_num_threads(1)
from daptune.serve import trainer
trainer.STEPS = 6
from daptune.cli import main
main(["serve", sys.argv[1], "--port", "0", "--backbone", "tiny", "--precision", "fp32"])
"""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server of an empty folder on the embedded backbone, with short trainings."""
    (tmp_path / "served").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path / "served")],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        line = ""
        while " at http" not in line:
            line = process.stderr.readline()
            assert line, f"the server ended with {process.wait()}"
        yield next(word for word in line.split() if word.startswith("http"))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def pictures(tmp_path: Path, colour: str, numbers: range) -> list[tuple[str, str]]:
    files = []
    for number in numbers:
        path = tmp_path / f"{colour} {number}.png"
        save_picture(path, COLOURS[colour], number)
        files.append((path.name, base64.b64encode(path.read_bytes()).decode()))
    return files


def fits(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


@contextmanager
def opened(wrong: list[str]) -> Iterator[Any]:
    """An empty page in a window of its own; errors of its console go to `wrong`."""
    playwright.expect.set_options(timeout=60_000)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        yield page
        browser.close()


def demo_pictures(demo: Path, name: str, count: int) -> list[tuple[str, str]]:
    """The first embedded pictures of a class, as PNG."""
    found = []
    for path in sorted((demo / name).iterdir())[:count]:
        stream = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").save(stream, "PNG")
        found.append((f"{path.stem}.png", base64.b64encode(stream.getvalue()).decode()))
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_demo(tmp_path_factory.mktemp("demo")) / demo_styles()[0] / "support"


def create(page: Any, name: str, classes: list[str]) -> None:
    page.get_by_role("tab", name="Teach").click()
    page.locator("#lesson").select_option("")
    page.get_by_label("Name").fill(name)
    for place, label in enumerate(classes, start=1):
        page.get_by_label(f"Class {place}").fill(label)
    page.get_by_role("button", name="Create").click()
    playwright.expect(page.locator("#classes h3")).to_have_text(classes)  # in the order typed


def train(page: Any) -> None:
    page.locator("#train").click()
    playwright.expect(page.locator("#train-state")).to_have_text("Done. Try it below.")


def test_exchanged_classes_are_told_moved_and_still_there_after_a_reload(url: str, demo: Path) -> None:
    """Pictures dropped by position: birds on the first class, which is fruit."""
    wrong: list[str] = []
    with opened(wrong) as page:
        page.goto(url)
        create(page, "food", ["fruit", "bird"])
        cards = page.locator("#classes .class")
        for place, shown in enumerate(("bird", "fruit"), start=1):
            page.evaluate(DROP, [f"#classes .class:nth-child({place})", demo_pictures(demo, shown, 6)])
            playwright.expect(cards.nth(place - 1).locator(".thumb img")).to_have_count(6)
        train(page)
        lines = page.locator("#doubts li span")
        playwright.expect(lines.first).to_have_text("6 pictures of fruit look like bird.")
        count = lines.count()
        assert count == 2 and page.locator(".thumb.doubted").count() > 6
        accuracy = page.locator("#charts strong").last.inner_text()

        create(page, "other", ["cup", "bottle"])
        assert page.locator("#doubts").is_hidden() and page.locator("#charts").is_hidden()
        page.locator("#lesson").select_option("food")
        playwright.expect(lines).to_have_count(count)
        page.reload()
        playwright.expect(page.locator("#lesson")).to_have_value("food")
        playwright.expect(page.locator("#train-state")).to_have_text("Done. Try it below.")
        playwright.expect(page.locator("#classes h3")).to_have_text(["fruit", "bird"])
        playwright.expect(lines).to_have_count(count)
        assert page.locator("#charts strong").last.inner_text() == accuracy and page.locator("#step-try").is_visible()
        assert page.locator("#train-progress").is_hidden() and page.locator("#train").inner_text() == "Train again"

        while lines.count():
            left = lines.count()
            page.locator("#doubts button").first.click()
            playwright.expect(lines).to_have_count(left - 1)
        assert page.locator("#doubts").is_hidden() and page.locator(".thumb.doubted").count() == 0
        playwright.expect(page.locator("#classes .count").first).not_to_contain_text("0 ")
        assert not wrong


def test_one_picture_a_class_is_not_sure_of_close_ones(url: str, demo: Path) -> None:
    """Which pictures are close is what the server's probabilities say; a clock is among those tried."""
    wrong: list[str] = []
    with opened(wrong) as page:
        page.goto(url)
        create(page, "few", ["fruit", "bird"])
        for place, shown in enumerate(("fruit", "bird"), start=1):
            page.evaluate(DROP, [f"#classes .class:nth-child({place})", demo_pictures(demo, shown, 1)])
        playwright.expect(page.locator(".thumb img")).to_have_count(2)
        train(page)
        told: list[Any] = []
        page.on("response", lambda answer: told.append(answer) if "/predict" in answer.url else None)
        tried = [one for name in ("clock", "fruit", "bird", "tool", "weather") for one in demo_pictures(demo, name, 5)]
        page.evaluate(DROP, ["#lesson-drop", tried])
        results = page.locator("#lesson-results > li")
        playwright.expect(results).to_have_count(25)
        rows = {row["file"]: row for answer in told for row in answer.json()["predictions"]}
        assert len(rows) == 25 and not any("unknown" in row for row in rows.values())
        close = {name for name, row in rows.items() if row["top"][0]["probability"] < 0.7}
        unsure = results.filter(has=page.locator(".unsure-title"))
        assert {unsure.nth(n).locator(".file").inner_text() for n in range(unsure.count())} == close
        assert 0 < len(close) < 25
        hint = unsure.first.locator(".hint").inner_text()
        assert hint.startswith("Likeliest: ") and "; then " in hint
        assert unsure.first.locator(".bars").count() == 0
        assert not wrong


def test_taught_in_the_browser(url: str, tmp_path: Path) -> None:
    wrong: list[str] = []
    with opened(wrong) as page:
        asked: set[str] = set()
        page.on("request", lambda request: asked.add(request.url))
        page.goto(url)
        playwright.expect(page.locator("#adapter-about")).to_contain_text("No adapter yet")
        assert page.evaluate("document.documentElement.lang") == "en"

        page.locator("#tab-try").press("ArrowRight")  # by keyboard
        page.wait_for_function("document.activeElement.id == 'tab-teach'")  # the window itself may lack the focus
        page.get_by_label("Name").fill("colours")
        page.get_by_label("Class 1").fill("red")
        page.get_by_label("Class 2").fill("blue_thing")
        page.get_by_role("button", name="Create").click()
        playwright.expect(page.locator("#train-state")).to_have_text("red has no picture yet.")
        assert page.locator("#train").is_disabled()
        for colour in ("red", "blue_thing"):
            selector = f'[aria-label="Class {colour}"]'
            page.evaluate(DROP, [selector, pictures(tmp_path, colour, range(10, 15))])
            playwright.expect(page.locator(f"{selector} .thumb img")).to_have_count(5)

        page.get_by_role("button", name="Train").click()
        playwright.expect(page.locator("#train-state")).to_have_text("Done. Try it below.")
        assert float(page.locator("#charts strong").first.inner_text()) > 0
        page.evaluate(DROP, ["#lesson-drop", pictures(tmp_path, "red", range(7, 9))])
        results = page.locator("#lesson-results > li")
        playwright.expect(results).to_have_count(2)
        assert {page.locator("#lesson-results h3").nth(n).inner_text() for n in (0, 1)} <= {"red", "blue_thing"}
        assert results.first.locator(".bars li").count() == 2 and results.first.locator(".track.thin").count() == 2

        page.evaluate(DROP, ["#lesson-drop", pictures(tmp_path, "green thing", range(1))])  # of no class
        playwright.expect(results).to_have_count(3)
        playwright.expect(results.first.locator(".unsure-title")).to_have_text("Not sure")
        playwright.expect(results.first.locator(".hint")).to_contain_text("Likeliest: ")
        assert results.first.locator(".bars").count() == 0
        results.first.get_by_label("Correct class").select_option("red")
        results.first.get_by_role("button", name="Add and train").click()
        playwright.expect(results).to_have_count(2)
        playwright.expect(page.locator('[aria-label="Class red"] .thumb')).to_have_count(6)
        playwright.expect(page.locator("#train-state")).to_have_text("Done. Try it below.")
        results.first.locator("img").hover()
        page.mouse.down()
        page.mouse.move(600, 300, steps=4)
        place = page.locator("#targets li", has_text="red").bounding_box()
        page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2, steps=4)
        page.mouse.up()
        playwright.expect(page.locator('[aria-label="Class red"] .thumb')).to_have_count(7)
        playwright.expect(page.locator("#train-state")).to_have_text("Done. Try it below.")

        page.get_by_role("button", name="Camera for red").click()
        page.get_by_role("button", name="Take a picture").click()
        playwright.expect(page.locator("#camera-count")).to_have_text("1 taken")
        page.get_by_role("button", name="Done").click()
        playwright.expect(page.locator('[aria-label="Class red"] .thumb')).to_have_count(8)

        with page.expect_download() as waiting:
            page.get_by_role("button", name="Download the adapter").click()
        waiting.value.save_as(tmp_path / "colours.zip")
        with zipfile.ZipFile(tmp_path / "colours.zip") as archive:
            assert "colours/adapter.safetensors" in archive.namelist() and archive.testzip() is None

        page.get_by_role("tab", name="Try").click()
        page.locator("#try input[type=file]").set_input_files([tmp_path / "red 10.png", tmp_path / "blue_thing 10.png"])
        playwright.expect(page.locator("#results > li")).to_have_count(2)
        (tmp_path / "broken.png").write_bytes(b"no image")
        page.locator("#try input[type=file]").set_input_files([tmp_path / "broken.png", tmp_path / "red 10.png"])
        playwright.expect(page.locator("#results .wrong")).to_contain_text("not an image")
        names = ["broken.png", "red 10.png", "red 10.png", "blue_thing 10.png"]  # as chosen, the latest in front
        playwright.expect(page.locator("#results .file")).to_have_text(names)
        playwright.expect(page.locator("#results .no-view")).to_have_count(1)
        assert page.locator("#results > li").first.locator("img").count() == 0

        page.set_viewport_size({"width": 360, "height": 740})
        assert fits(page)
        page.reload()
        page.get_by_role("tab", name="Teach").click()
        playwright.expect(page.locator(".thumb img")).to_have_count(13)
        assert fits(page) and page.locator("#step-keep").is_visible()
        assert not wrong and all(each.startswith((url, f"blob:{url}")) for each in asked)


def test_several_labels_and_none(url: str, tmp_path: Path) -> None:
    """Every class from its threshold on is an answer; where none is, the page says so, and compares with nothing."""
    from daptune.classifier import FewShotClassifier

    images = [Image.new("RGB", (48, 48), colour) for colour in ("red", "blue", "green")]
    labels = [["red", "square"], ["blue"], []]
    wrong: list[str] = []
    for name, level in (("all", 0.0), ("none", 1.0)):
        made = FewShotClassifier("zero_shot", "tiny", precision="fp32", multi_label=True).fit(images, labels)
        made.record_ = replace(made.record_, thresholds=[level] * 3)
        made.save(tmp_path / "served" / name)
        asked = Request(
            f"{url.rstrip('/')}/v1/adapters", json.dumps({"name": name}).encode(), {"Content-Type": "application/json"}
        )
        with urlopen(asked) as answer:
            assert json.load(answer)[0]["multi_label"] is True
    with opened(wrong) as page:
        for name, expected in (("all", ["blue", "red", "square"]), ("none", [])):
            page.goto(url)
            page.select_option("#adapter", name)
            playwright.expect(page.locator("#zero-shot-label")).to_be_hidden()
            page.evaluate(DROP, ["#try-drop", pictures(tmp_path, "red", range(1))])
            card = page.locator("#results .result").first
            playwright.expect(card).to_be_visible()
            assert sorted(card.locator(".first .label").all_inner_texts()) == expected
            assert ("None of the classes" in card.locator("p").all_inner_texts()) == (not expected)
            assert card.locator(".bars li").count() == 3
    assert not wrong
