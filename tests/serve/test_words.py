"""The dictionary of the page: complete, without leftovers, and of the server's own sentences, without a browser."""

import ast
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import daptune.data.images
from daptune.export.web import PAGE as EXPORTED
from daptune.serve import lessons
from daptune.serve.app import PAGE

PAGES = (PAGE, EXPORTED)
SCRIPTS = {f"{page.parent.name}/{path.name}": path.read_text("utf-8") for page in PAGES for path in page.glob("*.js")}
WORDS = "serve/words.js"
PLACE = re.compile(r"\{[^{}]*\}")
BRAND = {"daptune", "daptune serve FOLDER", "×", "1", "2", "3", "4"}
"""Texts of index.html that are the same in every language."""
UNSERVED = {
    "The page needs JavaScript and a web server. In this folder, run", "python -m http.server", ", and open",
    "http://localhost:8000", ".",
}  # fmt: skip
"""Shown where no script runs, which could translate them."""


def dictionary(name: str) -> dict[str, str]:
    (body,) = re.findall(rf"^export const {name} = (\{{.*?^\}});$", SCRIPTS[WORDS], flags=re.MULTILINE | re.DOTALL)
    found: dict[str, str] = json.loads(body)
    return found


class Texts(HTMLParser):
    """The texts of a page, and its attributes that are read or seen."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {value for name, value in attrs if name in ("aria-label", "placeholder", "title") and value}

    def handle_data(self, data: str) -> None:
        self.found.add(" ".join(data.split()))


def called() -> set[str]:
    """What the scripts pass to t()."""
    return {
        text
        for name, script in SCRIPTS.items()
        if name != WORDS
        for text in re.findall(r'\bt\("((?:[^"\\]|\\.)*)"', script)
    }


def shown() -> set[str]:
    return (
        set().union(*(Texts((page / "index.html").read_text("utf-8")).found for page in PAGES))
        - BRAND
        - UNSERVED
        - {""}
    )


def test_every_text_is_in_chinese_and_nothing_else_is() -> None:
    assert set(dictionary("zh")) == called() | shown()
    assert {"Train", "Train again", "{count} pictures of {label} look like {like}."} <= called()


def test_every_call_names_its_text() -> None:
    """A text made up elsewhere could not be looked for."""
    for name, script in SCRIPTS.items():
        if name != WORDS:
            assert len(re.findall(r"\bt\(", script)) == len(re.findall(r'\bt\("', script)), name


def test_translations_have_the_same_values() -> None:
    for english, chinese in (dictionary("zh") | dictionary("told")).items():
        assert set(PLACE.findall(chinese)) <= set(PLACE.findall(english)), english
        assert english == chinese or re.search(r"[\u4e00-\u9fff]", chinese), english
        if "1 " not in english:
            assert set(PLACE.findall(chinese)) == set(PLACE.findall(english)), english


def sentences() -> set[str]:
    """Every text of the server's code, the decoder and the scripts, with {} for values."""
    folder = Path(lessons.__file__).parent
    found = set()
    for path in (*folder.rglob("*.py"), Path(daptune.data.images.__file__)):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
                found.add("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    for name, script in SCRIPTS.items():
        if name != WORDS:
            found |= set(re.findall(r'"([^"\\\n]*)"', script))
    return found


def test_sentences_of_the_server_are_those_that_it_says() -> None:
    known = sentences()
    assert [text for text in dictionary("told") if PLACE.sub("{}", text) not in known] == []


def test_what_a_lesson_can_be_refused_with_is_known() -> None:
    """Of lessons and their training, every sentence."""
    known = {PLACE.sub("{}", text) for text in dictionary("told")}
    folder, missing = Path(lessons.__file__).parent, []
    for name in ("lessons.py", "trainer.py", "limits.py", "routes/teach.py"):
        for node in ast.walk(ast.parse((folder / name).read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refused":
                text = PLACE.sub("{}", ast.unparse(node.args[1]).removeprefix("f")[1:-1]).replace("\\\\", "\\")
                missing += [text] if text not in known else []
    assert missing == []
