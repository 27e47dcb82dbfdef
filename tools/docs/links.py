"""Links of the pages, as the site needs them.

The pages of docs/ are written for a reader of the repository: a link leads to a file beside or above them, and is often
called by it. On the site, a link to another page stays and has the page's title, one to a file that a page shows leads
to that page, and one to any other file leads to the repository's address, or, while the project has none, becomes the
file's name.
"""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

FENCED = re.compile(r"(^```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s]+)\)")
ELSEWHERE = re.compile(r"[a-z]+:|#")
DOCS = "docs/"


@dataclass(frozen=True)
class Site:
    """What the links of a page depend on.

    shown       path of a file outside docs/, from the root of the repository -> the page that shows it, from docs/
    titles      page, from docs/ -> its title
    repository  the address that `blob/main/` follows, or None
    """

    shown: Mapping[str, str] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    repository: str | None = None


def for_site(text: str, of: str, page: str, site: Site) -> str:
    """Markdown with its links as they must be on the site; fenced code stays as it is.

    of    path of the file that the text comes from, from the root of the repository: `docs/data.md`
    page  path of the page that shows it, from docs/: `data.md`
    """

    def changed(found: re.Match[str]) -> str:
        if ELSEWHERE.match(found["target"]):
            return found[0]
        target, hash_sign, anchor = found["target"].partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(of), target))
        inside = site.shown.get(path) or (path.removeprefix(DOCS) if path.startswith(DOCS) else None)
        called = found["text"]
        if inside:
            place = posixpath.relpath(inside, posixpath.dirname(page) or ".")
            called = site.titles.get(inside, called) if path.endswith(called) else called
        elif site.repository:
            place = f"{site.repository.rstrip('/')}/blob/main/{path}"
        else:
            return named(called, path)
        return f"{found['image']}[{called}]({place}{hash_sign}{anchor})"

    return "".join(part if part.startswith("```") else LINK.sub(changed, part) for part in FENCED.split(text))


def named(text: str, path: str) -> str:
    """A link without an address: its text as code if that names the file, else the text and the file's path."""
    if "`" in text:
        return text
    return f"`{text}`" if text.endswith(posixpath.basename(path)) else f"{text} (`{path}`)"
