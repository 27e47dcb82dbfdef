"""The image formats that are read, told by suffix in a folder and by the first bytes when decoding.

Few formats on purpose: of Pillow's many readers some start other programs or were never hardened.
"""

from pathlib import Path
from typing import IO

from PIL import Image, ImageFile

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
FORMAT_WORDS = "JPEG, PNG, WebP, BMP, GIF or TIFF"
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"})
_PREFIX_BYTES = 16  # what Pillow hands to each format's test


def is_image_file(path: Path) -> bool:
    """By suffix; a name without one (or with digits, as in `photo.001`) is judged by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if suffix and not suffix[1:].isdigit():
        return False
    try:
        with path.open("rb") as stream:
            return image_format(stream.read(_PREFIX_BYTES)) is not None
    except OSError:
        return False


def image_format(prefix: bytes) -> str | None:
    """The first of FORMATS whose signature begins with `prefix`, or None."""
    Image.preinit()
    for name in FORMATS:
        if name not in Image.OPEN:
            Image.init()
        _, accept = Image.OPEN[name]
        # a format's test answers with a sentence (true as well) where Pillow was built without its library
        if accept is not None and accept(prefix) is True:
            return name
    return None


def open_header(stream: IO[bytes]) -> ImageFile.ImageFile | None:
    """Read the header alone; None where no format's signature fits.

    Pillow's `Image.open` does the same and then warns or raises by a process-wide pixel limit; this leaves
    the limit to the caller, who has one of its own, and touches no global. Raises whatever the format's
    reader raises.
    """
    prefix = stream.read(_PREFIX_BYTES)
    stream.seek(0)
    name = image_format(prefix)
    if name is None:
        return None
    factory, _ = Image.OPEN[name]
    return factory(stream, "")
