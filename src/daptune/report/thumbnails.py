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
BYTES = 10_000  # of a picture at most
QUALITIES = (80, 60, 40, 20)


def thumbnail(source: ImageSource, title: str) -> Html:
    """The embedded image, about 5 kB; empty if it cannot be read."""
    try:
        image = decode(source)
    except DataError:
        return Html()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return embedded(image, title)


def embedded(image: Image.Image, title: str) -> Html:
    """A small image as an element, coarser or smaller if it would have more than `BYTES`."""
    while True:
        for quality in QUALITIES:
            stream = io.BytesIO()
            image.save(stream, "WEBP", quality=quality)
            if len(stream.getvalue()) <= BYTES:
                address = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
                return tag("img", src=address, alt=title, width=152, height=152)
        image = image.reduce(2)


def gallery(items: Sequence[tuple[ImageSource, str, Sequence[str]]], beside: Sequence[Html] = ()) -> Html:
    """A grid of images: (source, bold title, lines below it); `beside` has a second picture for each."""
    cards = []
    for place, (source, title, lines) in enumerate(items):
        picture = thumbnail(source, title)
        if beside:
            picture = tag("div", picture, beside[place], class_="pair")
        cards.append(tag("li", picture, tag("b", title), *(tag("span", line) for line in lines)))
    return tag("ul", *cards, class_="thumbs pairs" if beside else "thumbs")
