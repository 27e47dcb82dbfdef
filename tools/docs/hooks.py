"""What the site adds to the pages of docs/ when mkdocs builds it; mkdocs.yml names this file.

The pages have comments where the site puts more, which a reader of the repository does not see:

    <!-- page: ../CONTRIBUTING.md -->   the page is that file
    <!-- file: ../CITATION.cff -->      the file's text, as code
    <!-- api: daptune.load -->          the docstring, by mkdocstrings; `daptune.Backbone: to, name` has these members
    <!-- command line -->               what every `daptune VERB --help` says
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from tools.docs.command_line import reference
from tools.docs.links import DOCS, Site, for_site

ROOT = Path(__file__).parents[2]
PAGE = re.compile(r"<!-- page: (\S+) -->")
FILE = re.compile(r"<!-- file: (\S+) -->")
API = re.compile(r"<!-- api: ([\w.]+)(?:: ([\w, ]+))? -->")
MEMBERS = "\n    options:\n      members: [{}]"
COMMAND_LINE = "<!-- command line -->"
CHINESE = "zh/"
"""Pages below it are in Chinese; the theme would call their language English."""
LANGUAGES = {".cff": "yaml", ".toml": "toml", ".json": "json"}


def shown() -> dict[str, str]:
    """Files outside docs/ that a page of the site shows: path from the root -> page from docs/."""
    found = {"README.md": "start.md", "README.zh-CN.md": f"{CHINESE}start.md"}
    for path in (ROOT / DOCS).rglob("*.md"):
        page = path.relative_to(ROOT / DOCS).as_posix()
        for pattern in (PAGE, FILE):
            for target in pattern.findall(path.read_text("utf-8")):
                found[_from_root(DOCS + page, target)] = page
    return found


def titles() -> dict[str, str]:
    """Page from docs/ -> its first heading, without marks of code."""
    pages = {path.relative_to(ROOT / DOCS).as_posix(): path.read_text("utf-8") for path in (ROOT / DOCS).rglob("*.md")}
    return {page: text.partition("\n")[0].removeprefix("# ").replace("`", "") for page, text in pages.items()}


def filled(text: str, page: str, site: Site) -> str:
    """The Markdown of a page of docs/ as the site shows it; `page` is its path from docs/."""
    if whole := PAGE.search(text):
        source = _from_root(DOCS + page, whole[1])
        return for_site((ROOT / source).read_text("utf-8"), source, page, site)
    text = for_site(text, DOCS + page, page, site)
    text = FILE.sub(lambda found: _code(_from_root(DOCS + page, found[1])), text)
    text = API.sub(lambda found: f"::: {found[1]}" + (MEMBERS.format(found[2]) if found[2] else ""), text)
    return text.replace(COMMAND_LINE, reference()) if COMMAND_LINE in text else text


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Called by mkdocs for each page."""
    return filled(markdown, page.file.src_uri, Site(shown(), titles(), config["repo_url"]))


def on_page_context(context: Any, *, page: Any, config: Any, nav: Any) -> None:
    """Called by mkdocs right before it renders a page: the theme's own words follow the language of the page."""
    config.theme["language"] = "zh" if page.file.src_uri.startswith(CHINESE) else "en"


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Called by mkdocs with the HTML of each page."""
    return in_language(output, page.file.src_uri)


def in_language(html: str, page: str) -> str:
    """The HTML of a page with its language, by which fonts, voices and line breaks are chosen."""
    return re.sub(r'<html lang="[\w-]+"', '<html lang="zh-Hans"', html, count=1) if page.startswith(CHINESE) else html


def _from_root(of: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(of), target))


def _code(source: str) -> str:
    language = LANGUAGES.get(posixpath.splitext(source)[1], "text")
    return f"```{language}\n{(ROOT / source).read_text('utf-8').rstrip()}\n```"
