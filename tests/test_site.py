"""The site of `make docs`: every page is in its menu, anchors exist, public names and commands are in the reference.

None of this needs mkdocs; `make docs` itself fails for any warning.
"""

import re
import shlex
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

import daptune
from tests.test_docs import PAGES, ROOT
from tools.docs.columns import tabled
from tools.docs.command_line import reference
from tools.docs.hooks import API, PAGE, filled, in_language, on_page_context, shown
from tools.docs.links import Site, for_site

DOCS = ROOT / "docs"
SETTINGS = (ROOT / "mkdocs.yml").read_text("utf-8")
ABOVE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings as GitHub and the site make them: lower case, no punctuation, hyphens for spaces."""
    text = path.read_text("utf-8")
    if whole := PAGE.search(text):
        text += (path.parent / whole[1]).read_text("utf-8")
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", FENCED.sub("", text), flags=re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        number = 0
        while (numbered := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(numbered)
    return found


def test_every_page_is_in_the_menu_once_and_the_menu_has_no_other() -> None:
    (_, menu) = SETTINGS.split("\nnav:\n")
    listed = re.findall(r"([\w/-]+\.md)$", menu, flags=re.MULTILINE)
    assert sorted(listed) == [page.relative_to(DOCS).as_posix() for page in sorted(PAGES)]


def test_warnings_are_errors() -> None:
    assert "\nstrict: true\n" in SETTINGS and SETTINGS.count(": warn\n") == 7
    assert "mkdocs build\n" in (ROOT / "Makefile").read_text("utf-8")  # with -q, warnings would not count


@pytest.mark.parametrize("page", [*PAGES, *ABOVE], ids=lambda page: str(page.relative_to(ROOT)))
def test_anchors_exist(page: Path) -> None:
    prose = FENCED.sub("", page.read_text("utf-8"))
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", prose):
        leads_to = (page.parent / target) if target else page
        assert anchor in anchors(leads_to), f"{page.name} links to {target}#{anchor}"


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# CoOp + VPT (`coop_vpt`)\n\n## Why?\n\n```\n# no heading\n```\n\n## [Why?](a.md)\n", "utf-8")
    assert anchors(page) == {"coop--vpt-coop_vpt", "why", "why-1"}


def test_the_api_page_has_every_public_name_and_no_other() -> None:
    text = (DOCS / "api.md").read_text("utf-8")
    listed = API.findall(text)
    names = {name.removeprefix("daptune.") for name, _ in listed}
    missing = set(daptune.__all__) - names - {"__version__", "DaptuneError"}
    assert not missing and "`daptune.__version__`" in text and "daptune.errors" in [name for name, _ in listed]
    for name, members in listed:
        whole = object_called(name)
        assert all(hasattr(whole, member) for member in filter(None, members.split(", "))), (name, members)


def object_called(name: str) -> object:
    """The module, or the attribute of one, with a dotted name."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(import_module(module), attribute)


def test_the_command_line_is_the_programs_own() -> None:
    from daptune.cli.app import app

    text = reference()
    headings = re.findall(r"^#+ daptune (.*)$", text, flags=re.MULTILINE)
    verbs = {name for name in app if not name.startswith("-")}
    assert verbs <= set(headings) and {"data list", "data check", "data prepare"} <= set(headings)
    assert text.count("\ndaptune fit [OPTIONS] FOLDER\n") == 1
    assert "`--set OPTION=VALUE`" in text and "*[default: 0.2]*" in text
    assert "default: ()" not in text and "default: False" not in text and " -m " not in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_understood(page: Path) -> None:
    """Every command of a page has a verb and options that exist; it is not run."""
    from daptune.cli import data, eval_, export, import_, methods, serve, sharing, show  # noqa: F401
    from daptune.cli.app import app

    for body in re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL):
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line.partition("|")[0], comments=True)
            if words[:1] == ["daptune"]:
                app.parse_args(words[1:], print_error=False, exit_on_error=False)


TEXT = (
    "[a](data.md#x) [b.py](../src/b.py) [all of it](../c.json) [`d`](../d.py) [e](../E.md#y) [f](https://f.org) [g](#g)"
)
CODE = "\n```\n[a](../src/b.py)\n```\n"


def test_links_to_files_become_their_names() -> None:
    assert for_site(TEXT + CODE, "docs/page.md", "page.md", Site({"E.md": "e.md"})) == (
        "[a](data.md#x) `b.py` all of it (`c.json`) `d` [e](e.md#y) [f](https://f.org) [g](#g)" + CODE
    )


def test_links_to_files_lead_to_the_repository_if_it_has_an_address() -> None:
    assert for_site(TEXT, "docs/page.md", "page.md", Site(repository="https://host/us/it/")) == (
        "[a](data.md#x) [b.py](https://host/us/it/blob/main/src/b.py) [all of it](https://host/us/it/blob/main/c.json) "
        "[`d`](https://host/us/it/blob/main/d.py) [e](https://host/us/it/blob/main/E.md#y) [f](https://f.org) [g](#g)"
    )


def test_a_link_called_by_its_file_has_the_title_of_the_page() -> None:
    text = "[data.md](data.md#x) [docs/data.md](data.md) [data](data.md) [b.md](b.md) [../R.md](../R.md)"
    found = for_site(text, "docs/page.md", "page.md", Site({"R.md": "r.md"}, {"data.md": "Data", "r.md": "R"}))
    assert found == "[Data](data.md#x) [Data](data.md) [data](data.md) [b.md](b.md) [../R.md](r.md)"


def test_a_page_that_shows_a_file_of_the_root() -> None:
    site = Site({"CHANGELOG.md": "changelog.md"})
    text = "[a](docs/data.md) [b](docs/methods/dapt.md) [c](CHANGELOG.md) [d](src/d.py)"
    assert for_site(text, "CONTRIBUTING.md", "methods/page.md", site) == (
        "[a](../data.md) [b](dapt.md) [c](../changelog.md) d (`src/d.py`)"
    )


def test_what_the_comments_of_a_page_become() -> None:
    text = "# A\n\n<!-- file: ../LICENSE -->\n\n<!-- api: daptune.load -->\n\n<!-- api: daptune.Backbone: to -->\n"
    found = filled(text, "page.md", Site())
    licence = (ROOT / "LICENSE").read_text("utf-8").rstrip()
    assert found == (
        f"# A\n\n```text\n{licence}\n```\n\n::: daptune.load\n\n"
        "::: daptune.Backbone\n    options:\n      members: [to]\n"
    )
    assert filled("# B\n<!-- page: ../CONTRIBUTING.md -->", "page.md", Site()).startswith("# Contributing\n")
    assert shown()["CONTRIBUTING.md"] == "contributing.md" and shown()["CITATION.cff"] == "cite.md"


def test_chinese_pages_say_their_language() -> None:
    head = '<!doctype html><html lang="en" class="no-js"><body><pre>&lt;html lang="en"</pre>'
    assert in_language(head, "zh/start.md") == head.replace('lang="en"', 'lang="zh-Hans"', 1)
    assert in_language(head, "start.md") == head
    assert shown()["README.zh-CN.md"] == "zh/start.md"
    theme: dict[str, str] = {}
    for page, language in (("zh/start.md", "zh"), ("start.md", "en")):  # the theme's own words
        on_page_context(
            {}, page=SimpleNamespace(file=SimpleNamespace(src_uri=page)), config=SimpleNamespace(theme=theme), nav=None
        )
        assert theme == {"language": language}


def test_two_columns_become_a_table() -> None:
    text = """First line.

name      what it is called: a|b
          and how
a_longer_ which fills its column
one, two  of both

Raises DataError."""
    assert tabled(text) == (
        "First line.\n\n| | |\n|---|---|\n| `name` | what it is called: a\\|b and how |\n"
        "| `a_longer_` | which fills its column |\n| `one`, `two` | of both |\n\nRaises DataError."
    )


def test_lines_of_arguments_become_a_table() -> None:
    text = "Read it.\nkind: which one\n    of several.\nsize: how many.\nRaises DataError: always."
    assert tabled(text, ["kind", "size"]) == (
        "Read it.\n\n| | |\n|---|---|\n| `kind` | which one of several. |\n| `size` | how many. |\n\n"
        "Raises DataError: always."
    )
    assert tabled(text) == text


def test_prose_and_code_of_a_docstring_stay() -> None:
    text = "Words of one\nparagraph.\n\n    code  =  1\n    more  =  2"
    assert tabled(text) == text


def test_the_citations_agree() -> None:
    page, file = (DOCS / "cite.md").read_text("utf-8"), (ROOT / "CITATION.cff").read_text("utf-8")
    titles = re.findall(r'^ *title: "?(.*?)"?$', file, flags=re.MULTILINE)
    assert len(titles) == 2 and all(f"{{{title}}}" in page for title in titles)
    people = zip(re.findall(r"family-names: (.*)", file), re.findall(r"given-names: (.*)", file), strict=True)
    assert f"author    = {{{' and '.join(f'{family}, {given}' for family, given in people)}}}" in page
    assert f"version = {{{daptune.__version__}}}" in page and f"version: {daptune.__version__}\n" in file
    assert re.findall(r"arXiv:[\d.]+", page) == re.findall(r"value: (arXiv:[\d.]+)", file)
