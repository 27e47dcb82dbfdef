"""Any image file or array -> an RGB image of 8 bits, the right way up."""

import io
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from daptune.data.formats import FORMAT_WORDS, open_header
from daptune.data.table import DatasetItem, ImageSource, describe, image_cell
from daptune.errors import DataError

MAX_PIXELS = 100_000_000  # 400 MB once decoded; a phone's picture has 50 million at most
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

    Transparency is composited on white. Greyscale of 16 bits is scaled by 255 / 65535, whatever part of the
    range it uses. CMYK and palettes are converted by Pillow. Arrays are uint8: H x W, H x W x 3 or H x W x
    4 (RGBA). With `shrink_to`, a JPEG file of which a half, a quarter or an eighth has both sides at least that long
    comes at that size, which is quicker and not quite what resizing makes of it.
    Raises DataError in one line: no image, truncated, over max_pixels (TooManyPixels), or pixels of another kind.
    """
    kind: type[DataError] = DataError
    try:
        cell = source.load() if isinstance(source, DatasetItem) else image_cell(source)
        if isinstance(cell, Path):
            with cell.open("rb") as stream:
                return _decode_stream(stream, max_pixels, shrink_to)
        if isinstance(cell, bytes):
            return _decode_stream(io.BytesIO(cell), max_pixels, shrink_to)
        if isinstance(cell, np.ndarray):
            cell = _from_array(cell)
        with _loading:
            cell.load()
        return _to_rgb(_upright(cell))
    except DataError as error:
        kind, reason = type(error), str(error)
    except OSError as error:
        reason = f"{error.strerror or error}."
    except Exception as error:  # Pillow's readers raise anything on damaged bytes: IndexError, struct.error, ...
        reason = f"damaged ({type(error).__name__}: {error})."
    raise kind(f"{source if isinstance(source, str) else describe(source)}: {reason}")


def _decode_stream(stream: IO[bytes], max_pixels: int, shrink_to: int | None) -> Image.Image:
    image = open_header(stream)
    if image is None:
        raise DataError(f"not an image; expected {FORMAT_WORDS}.")
    if image.width * image.height > max_pixels:
        raise TooManyPixels(
            f"{image.width} x {image.height} pixels are over the limit of {max_pixels / 1e6:g} million; shrink it."
        )
    if shrink_to is not None:
        image.draft(None, (shrink_to, shrink_to))
    image.load()
    return _to_rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # a damaged EXIF block says nothing on the pixels
        orientation = None
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "F":
        raise DataError("its pixels are floats; expected 8 or 16 bits.")
    if image.mode == "I" or image.mode.startswith("I;"):
        return _from_wide(np.asarray(image))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _from_wide(pixels: npt.NDArray[Any]) -> Image.Image:
    """Greyscale of 16 bits to 8, rounded."""
    if pixels.min() < 0 or pixels.max() > 65535:
        raise DataError("its pixels have 32 bits; expected 8 or 16.")
    narrow = (pixels.astype(np.uint32) * 255 + 32767) // 65535
    return Image.fromarray(narrow.astype(np.uint8)).convert("RGB")


def _from_array(pixels: npt.NDArray[Any]) -> Image.Image:
    if pixels.dtype != np.uint8:
        raise DataError("expected uint8 pixels from 0 to 255; convert: (image * 255).astype('uint8') for 0 to 1.")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if 0 in pixels.shape or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise DataError("expected height x width, x 3 (RGB) or x 4 (RGBA).")
    return Image.fromarray(np.ascontiguousarray(pixels))
