"""The image formats that are read, told by suffix in a folder and by the first bytes when decoding.

Few formats on purpose: of Pillow's many readers some start other programs or were never hardened.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile, features

from daptune.errors import DataError
from daptune.regular import open_regular

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
FORMAT_WORDS = "JPEG, PNG, WebP, AVIF, BMP, GIF or TIFF"
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"})
AVIF_SUFFIXES = frozenset({".avif", ".avifs"})
HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif", ".heics", ".heifs"})
OTHER_SUFFIXES = frozenset(
    {".jxl", ".jp2", ".j2k", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".psd"}
)
"""Pictures that are never read: what cameras and editors write."""
FILM_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp"}
)
"""Films, of which `daptune predict --every` reads frames."""
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
MOST_SCANS = 100
"""Scans of a JPEG; encoders write 1 to 10."""
MOST_CANVAS = 100_000_000
_SCAN = b"\xff\xda"
_BLOCK = 1 << 20
_PREFIX_BYTES = 16  # what Pillow hands to each format's test


@cache
def _reads_avif() -> bool:
    """Pillow from 11.3 on, where it was built with libavif."""
    return "avif" in features.modules and bool(features.check("avif"))


@cache
def _reads_heic() -> bool:
    """Whether pillow-heif is installed; Pillow is told of it the first time that this is asked."""
    if find_spec("pillow_heif") is None:
        return False
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return True


def is_readable_suffix(suffix: str) -> bool:
    """Whether files of this suffix (in lower case, with its dot) are read on this machine."""
    return (
        suffix in SUFFIXES or (suffix in AVIF_SUFFIXES and _reads_avif()) or (suffix in HEIC_SUFFIXES and _reads_heic())
    )


def is_picture_file(path: Path) -> bool:
    """`is_image_file`, or a picture of a format that is not read here."""
    return path.suffix.lower() in AVIF_SUFFIXES | HEIC_SUFFIXES | OTHER_SUFFIXES or is_image_file(path)


def what_to_do(suffix: str) -> str:
    """How the pictures of a suffix that is not read here come to be read; empty for what is no picture."""
    if suffix in HEIC_SUFFIXES:
        return "they need pillow-heif: pip install 'daptune[heic]'"
    if suffix in AVIF_SUFFIXES:
        return "they need a newer Pillow: pip install -U pillow"
    return "save them as JPEG or PNG" if suffix in OTHER_SUFFIXES else ""


def is_film_file(path: Path) -> bool:
    return path.suffix.lower() in FILM_SUFFIXES


def left_out(files: Iterable[Path]) -> list[str]:
    """A line for each kind of picture among files that were left out: how many there are, and what to do."""
    kinds = Counter(suffix for path in files if what_to_do(suffix := path.suffix.lower()))
    return [f"{number} {kind} files were left out: {what_to_do(kind)}" for kind, number in sorted(kinds.items())]


def is_image_file(path: Path) -> bool:
    """By suffix; a name without one (or with digits, as in `photo.001`) is judged by its first bytes."""
    suffix = path.suffix.lower()
    if is_readable_suffix(suffix):
        return True
    if suffix and not suffix[1:].isdigit():
        return False
    try:
        with open_regular(path) as stream:
            return image_format(stream.read(_PREFIX_BYTES)) is not None
    except OSError:
        return False


def image_format(prefix: bytes) -> str | None:
    """The first of FORMATS whose signature begins with `prefix`, AVIF or HEIF where they are read, or None."""
    if suffix := _container(prefix):
        readable = is_readable_suffix(suffix)
        return ("AVIF" if suffix == ".avif" else "HEIF") if readable else None
    Image.preinit()
    for name in FORMATS:
        if name not in Image.OPEN:
            Image.init()
        _, accept = Image.OPEN[name]
        # a format's test answers with a sentence (true as well) where Pillow was built without its library
        if accept is not None and accept(prefix) is True:
            return name
    return None


def unread_kind(prefix: bytes) -> str:
    """What to do about a picture that begins so and is not read here; empty where it is none that is known."""
    suffix = _container(prefix)
    kind = "AVIF" if suffix == ".avif" else "HEIC"
    return (
        f"{kind} pictures are not read here: {what_to_do(suffix)}" if suffix and not is_readable_suffix(suffix) else ""
    )


def _container(prefix: bytes) -> str:
    """`.avif` or `.heic` by the brand of an ISO media file (ISO/IEC 14496-12, 4.3), else empty."""
    if prefix[4:8] != b"ftyp":
        return ""
    brand = prefix[8:12]
    return ".avif" if brand in _AVIF_BRANDS else ".heic" if brand in _HEIC_BRANDS else ""


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
    if name not in Image.OPEN:
        Image.init()
    if name == "JPEG":
        _check_scans(stream)
    if name == "WEBP":
        _check_canvas(stream)
    factory, _ = Image.OPEN[name]
    return factory(stream, "")


def _check_scans(stream: IO[bytes]) -> None:
    """DataError for a JPEG of more than `MOST_SCANS`: each is a pass over all pixels (ITU T.81, B.2.3).

    In its compressed data a byte FF is followed by 00 or a restart marker, so that a marker can be counted as it is.
    """
    scans, last = 0, b""
    while block := stream.read(_BLOCK):
        scans += (last + block).count(_SCAN)
        last = block[-1:]
    stream.seek(0)
    if scans > MOST_SCANS:
        raise DataError(f"it is a JPEG of {scans} scans, the limit is {MOST_SCANS}; save it again.")


def _check_canvas(stream: IO[bytes]) -> None:
    """DataError for a WebP whose header claims far too many pixels: its reader takes memory for them at once.

    (RFC 9649, 2.7: the canvas is in bytes 24 to 30 of the extended format.)
    """
    head = stream.read(30)
    stream.seek(0)
    width, height = (1 + int.from_bytes(head[place : place + 3], "little") for place in (24, 27))
    if head[12:16] == b"VP8X" and width * height > MOST_CANVAS:
        raise DataError(f"{width} x {height} pixels are over the limit of {MOST_CANVAS / 1e6:g} million; shrink it.")
