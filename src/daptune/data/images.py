"""Any image file or array -> an RGB image of 8 bits, the right way up."""

import io
import logging
import re
import threading
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from daptune.data.formats import FILM_SUFFIXES, FORMAT_WORDS, OTHER_SUFFIXES, open_header, unread_kind, what_to_do
from daptune.data.quiet import heard
from daptune.data.table import ImageSource, MadeImage, describe, image_cell
from daptune.errors import DataError, foreign
from daptune.regular import open_regular

MAX_PIXELS = 100_000_000  # 400 MB once decoded; a phone's picture has 50 million at most
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281  # TIFF 6.0, section 8
_DEPTHS = (8, 10, 12, 14)  # of cameras and scanners that fill 16 bits in part
_log = logging.getLogger("daptune")
_ORIENTATION = 0x0112  # EXIF 2.3, 4.6.4 A: which way the camera was held
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class TooManyPixels(DataError):
    """An image has more pixels than the caller takes."""


_loading = threading.Lock()  # the same half-read PIL image may stand in a table twice


def decode(source: ImageSource | str, *, max_pixels: int = MAX_PIXELS, shrink_to: int | None = None) -> Image.Image:
    """An RGB image in memory, upright by its EXIF tag; of an animation the first frame.

    Transparency is composited on white. Greyscale of 16 bits is scaled from the range that the file states (TIFF's
    BitsPerSample and MaxSampleValue, PNG's sBIT); where it states none and uses 14 bits or less, from 8, 10, 12 or 14
    bits, with one warning. CMYK and palettes are converted by Pillow. Arrays are uint8: H x W, H x W x 3 or H x W x
    4 (RGBA). With `shrink_to`, a JPEG file of which a half, a quarter or an eighth has both sides at least that long
    comes at that size, which is quicker and not quite what resizing makes of it.
    Raises DataError in one line: no image, truncated, over max_pixels (TooManyPixels), or pixels of another kind.
    """
    name = source if isinstance(source, str) else describe(source)
    try:
        with heard(name):
            return _decode(source, max_pixels, shrink_to)
    except DataError as error:
        raise type(error)(f"{name}: {error}") from None
    except OSError as error:
        raise DataError(f"{name}: {_in_our_words(f'{error.strerror or error}.')}") from None


def _in_our_words(reason: str) -> str:
    """A reason; the numbers of Pillow's decoders say nothing to a user."""
    return "damaged: its pixels cannot be decoded." if re.match(r"(de|en)coder error", reason) else reason


def _decode(source: ImageSource | str, max_pixels: int, shrink_to: int | None) -> Image.Image:
    with foreign(lambda why: DataError(f"damaged ({why})."), passing=(OSError,)):
        cell = source.load() if isinstance(source, MadeImage) else image_cell(source)
        if isinstance(cell, Path):
            with open_regular(cell) as stream:
                return _decode_stream(stream, max_pixels, shrink_to, cell.suffix.lower())
        if isinstance(cell, bytes):
            return _decode_stream(io.BytesIO(cell), max_pixels, shrink_to)
        if isinstance(cell, np.ndarray):
            cell = _from_array(cell)
        with _loading:
            cell.load()
        return _to_rgb(_upright(cell), 0)


def _decode_stream(stream: IO[bytes], max_pixels: int, shrink_to: int | None, suffix: str = "") -> Image.Image:
    image = open_header(stream)
    if image is None:
        stream.seek(0)
        kind = unread_kind(stream.read(16))
        if not kind and suffix in OTHER_SUFFIXES:
            kind = f"{suffix} files are not read: {what_to_do(suffix)}"
        elif not kind and suffix in FILM_SUFFIXES:
            kind = "a film; `daptune predict --every 1s` reads its frames"
        raise DataError(f"{kind}." if kind else f"not an image; expected {FORMAT_WORDS}.")
    if image.width * image.height > max_pixels:
        raise TooManyPixels(
            f"{image.width} x {image.height} pixels are over the limit of {max_pixels / 1e6:g} million; shrink it."
        )
    if shrink_to is not None:
        image.draft(None, (shrink_to, shrink_to))
    most = _stated_white(image, stream) if image.mode.startswith("I") else 0
    image.load()
    return _to_rgb(_upright(image), most)


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # a damaged EXIF block says nothing on the pixels
        orientation = None
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _stated_white(image: Image.Image, stream: IO[bytes]) -> int:
    """The value of white that a file of 16 bits states, 0 where it states none."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0]
        most = image.tag_v2.get(_MAX_SAMPLE_VALUE, 0)
        most = most[0] if isinstance(most, tuple) else most
        return int(most) if 0 < most <= 65535 else (1 << bits) - 1 if bits < 16 else 0
    if image.format != "PNG":
        return 0
    place = stream.tell()
    stream.seek(8)
    bits = 0
    while len(head := stream.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):  # sBIT stands before the pixels
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"sBIT":
            bits = (stream.read(1) or b"\0")[0]
            break
        stream.seek(length + 4, 1)
    stream.seek(place)
    return (1 << bits) - 1 if 0 < bits <= 16 else 0


def _to_rgb(image: Image.Image, most: int) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "F":
        raise DataError("its pixels are floats; expected 8 or 16 bits.")
    if image.mode == "I" or image.mode.startswith("I;"):
        return _from_wide(np.asarray(image), most)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _from_wide(pixels: npt.NDArray[Any], most: int) -> Image.Image:
    """Greyscale of 16 bits to 8, rounded. most: the value of white that the file states, 0 for none.

    PNG's samples fill their 16 bits whatever sBIT says, and those of many cameras do not: the larger value decides.
    """
    brightest = int(pixels.max())
    if pixels.min() < 0 or brightest > 65535:
        raise DataError("its pixels have 32 bits; expected 8 or 16.")
    white = most if most >= brightest else 65535
    if not most and brightest:
        bits = next((bits for bits in _DEPTHS if brightest < 1 << bits), 16)
        white = (1 << bits) - 1
        if bits < 16:
            _say_depth(bits)
    narrow = (pixels.astype(np.uint32) * 255 + white // 2) // max(white, 1)
    return Image.fromarray(narrow.astype(np.uint8)).convert("RGB")


@cache
def _say_depth(bits: int) -> None:
    """Once for each depth."""
    _log.warning(
        "greyscale images of 16 bits that use %d bits are read as %d bits, so that white is %d; files that state it "
        "(TIFF's MaxSampleValue, PNG's sBIT) are read by what they state",
        bits, bits, (1 << bits) - 1,
    )  # fmt: skip


def _from_array(pixels: npt.NDArray[Any]) -> Image.Image:
    if pixels.dtype != np.uint8:
        raise DataError("expected uint8 pixels from 0 to 255; convert: (image * 255).astype('uint8') for 0 to 1.")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if 0 in pixels.shape or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise DataError("expected height x width, x 3 (RGB) or x 4 (RGBA).")
    return Image.fromarray(np.ascontiguousarray(pixels))
