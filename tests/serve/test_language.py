"""The page follows the browser's language, in headless Chromium; the answers of the server are made up."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from daptune.serve.app import PAGE

from .test_page import CHROMIUM, DROP, FLAGS, fits, playwright
from .test_page import pytestmark as pytestmark

URL = "http://127.0.0.1:9/"
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
TAKEN = "the name '我的东西' is already taken; choose another name."
UNKNOWN = "the moon is in the way."
ADAPTER = {"name": "a", "status": "loaded", "method": "dapt", "classes": list("abcdefgh"), "known_images": 0}
ANSWERS: dict[str, Any] = {
    "/v1/info": {
        "backbone": {"name": "tiny"}, "teach": True, "zero_shot": True, "reject": 0,
        "limits": {"max_files": 32, "max_bytes": 32e6},
    },
    "/v1/adapters": [ADAPTER],
    "/v1/lessons": [],
}  # fmt: skip
ROWS = [
    {"file": "a: b.png", "error": "a: b.png: not an image; expected JPEG, PNG."},
    {"file": "c.png", "error": UNKNOWN},
    {"file": "d.png", "top": [{"label": "cup", "probability": 0.9}, {"label": "b", "probability": 0.1}],
     "zero_shot": [{"label": "cup", "probability": 0.6}, {"label": "b", "probability": 0.4}]},
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def answer(route: Any, request: Any) -> None:
    path = "/" + request.url.removeprefix(URL).partition("?")[0]
    if request.method == "POST" and path == "/v1/lessons":
        return route.fulfill(status=409, body=json.dumps({"error": TAKEN}), content_type="application/json")
    if path.endswith("/predict"):
        return route.fulfill(body=json.dumps({"adapter": "a", "predictions": ROWS}), content_type="application/json")
    if path in ANSWERS:
        return route.fulfill(body=json.dumps(ANSWERS[path]), content_type="application/json")
    file = PAGE / (path.removeprefix("/page/") if path != "/" else "index.html")
    return route.fulfill(body=file.read_bytes(), content_type=KINDS[file.suffix])


def opened(browser: Any, language: str, languages: list[str] | None = None) -> Any:
    """The page in a browser of these languages, most wanted first."""
    context = browser.new_context(locale=language, viewport={"width": 390, "height": 800})
    page = context.new_page()
    if languages:
        page.add_init_script(f"Object.defineProperty(navigator, 'languages', {{ value: {json.dumps(languages)} }})")
    page.route(f"{URL}**", answer)
    page.goto(URL)
    playwright.expect(page.locator("#adapter-about")).to_contain_text("dapt")
    return page


@pytest.mark.parametrize(
    ("language", "languages", "lang", "tab"),
    [
        ("zh-CN", None, "zh-Hans", "试用"),
        ("zh-TW", None, "zh-Hans", "试用"),
        ("en-US", None, "en", "Try"),
        ("de-DE", None, "en", "Try"),
        ("fr-FR", ["fr-FR", "zh-CN", "en"], "zh-Hans", "试用"),
        ("fr-FR", ["fr-FR", "en-GB", "zh"], "en", "Try"),
    ],
)
def test_the_language_is_the_browsers(
    browser: Any, language: str, languages: list[str] | None, lang: str, tab: str
) -> None:
    page = opened(browser, language, languages)
    assert page.evaluate("document.documentElement.lang") == lang
    assert page.locator("#tab-try").inner_text() == tab
    page.context.close()


def test_in_chinese(browser: Any) -> None:
    page = opened(browser, "zh-CN")
    assert page.locator("#adapter-about").inner_text() == "dapt，8 个类别：a, b, c, d, e, f, …"
    assert page.locator("#backbone").inner_text() == "骨干网络：tiny"
    page.evaluate(DROP, ["#try-drop", [[row["file"], ""] for row in ROWS]])
    cards = page.locator("#results > li")
    playwright.expect(cards).to_have_count(3)
    assert page.locator("#results .file").all_inner_texts() == ["a: b.png", "c.png", "d.png"]  # as dropped
    assert page.locator("#results .wrong").all_inner_texts() == ["a: b.png：不是图片；支持的格式：JPEG, PNG。", UNKNOWN]
    assert "零样本 CLIP" in page.locator(".legend").inner_text()
    playwright.expect(page.locator("#results .no-view")).to_have_text(["无法预览"] * 3)  # an icon of a broken one: none
    assert page.locator("#results img").count() == 0 and fits(page)

    page.get_by_role("tab", name="自己训练").click()
    page.locator("#starter-more").click()
    assert page.locator("#starter input").last.get_attribute("aria-label") == "类别 3"
    page.get_by_label("名称").fill("我的东西")
    page.get_by_label("类别 1").fill("cup")
    page.get_by_label("类别 2").fill("bottle")
    page.get_by_role("button", name="创建").click()
    playwright.expect(page.locator(".toast p")).to_have_text("名称 '我的东西' 已被占用；请换一个名称。")
    left = page.evaluate("""() => {
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
        const latin = (text) => /[A-Za-z]{3}/.test(text);
        while (walker.nextNode()) if (latin(walker.currentNode.data)) found.push(walker.currentNode.data.trim());
        for (const it of document.querySelectorAll("[aria-label]")) found.push(it.ariaLabel);
        return found.filter((text) => !/[\\u4e00-\\u9fff]/.test(text));
    }""")
    # names, of which none is English by mistake, and what only the server knows
    assert set(left) <= {"daptune", "daptune serve FOLDER", "a: b.png", "c.png", "d.png", "cup", UNKNOWN}
    page.context.close()
