"""Links of the pages, as the site needs them.

The pages of docs/ are written for a reader of the repository: a link leads to a file beside or above them. On the site,
a link to another page stays, one to a file that a page shows leads to that page, and one to any other file leads to the
repository's address, or, while the project has none, becomes the file's name.
"""

import posixpath
import re
from collections.abc import Callable, Mapping

FENCED = re.compile(r"(^```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s]+)\)")
ELSEWHERE = re.compile(r"[a-z]+:|#")
DOCS = "docs/"


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text with `change` made in every part but the fenced blocks."""
    return "".join(part if part.startswith("```") else change(part) for part in FENCED.split(text))


def for_site(text: str, of: str, page: str, shown: Mapping[str, str], repository: str | None) -> str:
    """Markdown with the links of the file `of` as they must be in the page `page`.

    of          path of the file that the text comes from, from the root of the repository: `docs/data.md`
    page        path of the page that shows it, from docs/: `data.md`
    shown       path of a file, from the root -> the page that shows it, from docs/
    repository  the address that `blob/main/` follows, or None
    """

    def changed(found: re.Match[str]) -> str:
        target, _, anchor = found["target"].partition("#")
        if ELSEWHERE.match(found["target"]):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(of), target))
        inside = shown.get(path) or (path.removeprefix(DOCS) if path.startswith(DOCS) else None)
        if inside:
            place = posixpath.relpath(inside, posixpath.dirname(page) or ".") + (f"#{anchor}" if anchor else "")
            return f"{found['image']}[{found['text']}]({place})"
        if repository:
            address = f"{repository.rstrip('/')}/blob/main/{path}" + (f"#{anchor}" if anchor else "")
            return f"{found['image']}[{found['text']}]({address})"
        return named(found["text"], path)

    return outside_code(text, lambda part: LINK.sub(changed, part))


def named(text: str, path: str) -> str:
    """A link without an address: its text as code if that names the file, else the text and the file's path."""
    if "`" in text:
        return text
    return f"`{text}`" if text.endswith(posixpath.basename(path)) else f"{text} (`{path}`)"
