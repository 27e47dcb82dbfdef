"""The Chinese pages say what the English ones do: the same commands, code, links, names and figures.

What the English pages say is run by test_readme.py and test_docs.py, so that nothing is run twice.
"""

import ast
import os
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = {
    ROOT / "README.md": ROOT / "README.zh-CN.md",
    ROOT / "docs/start.md": ROOT / "docs/zh/start.md",
    ROOT / "docs/gallery.md": ROOT / "docs/zh/gallery.md",
}
BLOCK = re.compile(r"(<!-- needs a network -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")

pairs = pytest.mark.parametrize(("english", "chinese"), PAGES.items(), ids=lambda page: page.stem)


def prose(page: Path) -> str:
    return BLOCK.sub("", page.read_text("utf-8"))


def code(page: Path) -> list[tuple[bool, str, object]]:
    """Each block: whether it needs a network, its language, and what it does, without comments."""
    return [
        (bool(network), kind, meaning(kind, body)) for network, kind, body in BLOCK.findall(page.read_text("utf-8"))
    ]


def meaning(kind: str, body: str) -> object:
    if kind == "python":
        return ast.dump(ast.parse(body))
    return [words for line in body.splitlines() if (words := shlex.split(line, comments=True))]


def targets(page: Path) -> Counter[str]:
    """Links, from the root of the repository, those to a translation as to the original."""
    originals = {os.fspath(chinese): os.fspath(english) for english, chinese in PAGES.items()}
    found: Counter[str] = Counter()
    for link in LINK.findall(prose(page)):
        path, hash_sign, anchor = link.partition("#")
        if not link.startswith("http"):
            path = os.path.normpath(page.parent / path)
            path = os.path.relpath(originals.get(path, path), ROOT)
        found[path + hash_sign + anchor] += 1
    return found


def numbers(page: Path) -> Counter[str]:
    """Figures of tables and prose; links, code and the texts of pictures are compared by themselves."""
    text = re.sub(r"!\[[^\]]*\]|\]\([^)\s]*\)|`[^`]*`", "", prose(page))
    return Counter(re.findall(r"\d+(?:[.,]\d+)*", text))


@pairs
def test_the_code_is_the_same(english: Path, chinese: Path) -> None:
    assert code(english) == code(chinese) and code(english)


@pairs
def test_the_links_are_there_too(english: Path, chinese: Path) -> None:
    assert not targets(english) - targets(chinese)


@pairs
def test_the_figures_are_the_same(english: Path, chinese: Path) -> None:
    assert numbers(english) == numbers(chinese)


@pairs
def test_the_names_are_the_same(english: Path, chinese: Path) -> None:
    """Commands, options, files and methods, as code in the text."""
    names, theirs = (set(re.findall(r"`([^`\n]+)`", prose(page))) for page in (english, chinese))
    assert names <= theirs


@pairs
def test_each_leads_to_the_other_at_its_top(english: Path, chinese: Path) -> None:
    for page, other in ((english, chinese), (chinese, english)):
        top = page.read_text("utf-8").splitlines()[2]
        assert [os.path.normpath(page.parent / link) for link in LINK.findall(top)] == [os.fspath(other)]


def test_every_chinese_page_is_a_translation() -> None:
    found = {*(ROOT / "docs/zh").rglob("*.md"), *ROOT.glob("*.zh-CN.md")}
    assert found == set(PAGES.values())


def test_what_counts_as_the_same() -> None:
    assert meaning("bash", "daptune fit a/  # learn\n\n") == meaning("bash", "daptune fit a/ # 学习\n")
    assert meaning("bash", "daptune fit a/") != meaning("bash", "daptune fit b/")
    assert meaning("python", "fit(1)  # one") == meaning("python", "fit(1)  # 一") != meaning("python", "fit(2)")
