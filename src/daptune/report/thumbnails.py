"""Thumbnails embedded in the page."""

import base64
import io
from collections.abc import Sequence

from PIL import Image

from daptune.data.images import decode
from daptune.data.table import ImageSource
from daptune.errors import DataError
from daptune.report.html import Html, tag

SIDE = 176  # pixels of the longer side; displayed at about 150


def thumbnail(source: ImageSource, title: str) -> Html:
    """The embedded image, about 5 kB; empty if it cannot be read."""
    try:
        image = decode(source)
    except DataError:
        return Html()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=80)
    address = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return tag("img", src=address, alt=title, width=152, height=152)


def gallery(items: Sequence[tuple[ImageSource, str, Sequence[str]]]) -> Html:
    """A grid of images: (source, bold title, lines below it)."""
    cards = []
    for source, title, lines in items:
        cards.append(tag("li", thumbnail(source, title), tag("b", title), *(tag("span", line) for line in lines)))
    return tag("ul", *cards, class_="thumbs")
