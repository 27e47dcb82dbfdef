"""HTML generation that is safe against injection: all text is escaped, except `Html`."""

import html
from collections.abc import Iterable


class Html(str):
    """Markup that is not escaped. `+` with plain text gives plain text, which is escaped later."""


def escape(text: str) -> Html:
    """Text as markup; markup is returned unchanged."""
    return text if isinstance(text, Html) else Html(html.escape(text, quote=True))


def join(parts: Iterable[str], between: str = "") -> Html:
    return Html(escape(between).join(escape(part) for part in parts))


def tag(name: str, /, *children: str, **attributes: str | int | bool | None) -> Html:
    """One element. `class_` is the attribute class, `data_x` data-x; True writes only the name, None nothing."""
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        words.append(attribute if value is True else f'{attribute}="{html.escape(str(value), quote=True)}"')
    start = f"<{' '.join(words)}>"
    return Html(start if name in _VOID else f"{start}{join(children)}</{name}>")


_VOID = {"img", "meta", "link", "br", "hr", "col", "input"}
