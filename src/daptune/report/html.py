"""HTML that cannot be injected into: text is escaped unless it was made by `tag` or said to be `Html`."""

import html
from collections.abc import Iterable


class Html(str):
    """Markup that stands in a page as it is. Joining it with plain text by + gives plain text again: escaped later."""


def escape(text: str) -> Html:
    """Text as markup; markup stays."""
    return text if isinstance(text, Html) else Html(html.escape(text, quote=True))


def join(parts: Iterable[str], between: str = "") -> Html:
    """Texts and markup one after the other."""
    return Html(escape(between).join(escape(part) for part in parts))


def tag(name: str, /, *children: str, **attributes: str | int | bool | None) -> Html:
    """One element. `class_` is the attribute class, `data_x` data-x; True writes the name alone, None nothing."""
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        words.append(attribute if value is True else f'{attribute}="{html.escape(str(value), quote=True)}"')
    start = f"<{' '.join(words)}>"
    return Html(start if name in _VOID else f"{start}{join(children)}</{name}>")


_VOID = {"img", "meta", "link", "br", "hr", "col", "input"}
