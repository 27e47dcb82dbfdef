"""Frames of a film, sampled by time. PyAV (extra `video`) decodes.

FFmpeg knows hundreds of formats, some of which open other files or addresses. So the containers are few, no protocol
is allowed, and the file is opened here: FFmpeg gets its bytes alone. Before that, a process with limits decodes the
first frame.
"""

import re
import threading
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

from PIL import Image

from daptune.data.parallel import default_workers
from daptune.data.table import MadeImage
from daptune.errors import DataError, extra, foreign, reason
from daptune.isolated import try_first
from daptune.regular import open_regular

MOST_PIXELS = 40_000_000
"""Of a frame; 8K has 33 million."""
HELD = 256_000_000
"""Bytes of frames that wait to be resized, two at least."""
FILM_WORDS = "MP4, MOV, MKV, WebM, AVI or MPEG"
_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg",
    "protocol_whitelist": "none",
}
_MEMORY, _SECONDS = 1_500_000_000, 30  # for the first frame
_THREADS = 4
_UNITS = {"ms": Fraction(1, 1000), "s": Fraction(1), "": Fraction(1), "min": Fraction(60), "h": Fraction(3600)}


class Frame(MadeImage):
    """A decoded frame, which is handed on once and not kept."""

    def __init__(self, name: str, image: Image.Image) -> None:
        self.name = name
        self._images = [image]

    def load(self) -> Image.Image:
        return self._images.pop()

    def __str__(self) -> str:
        return self.name


class MissingFrames(MadeImage):
    """In the place of frames that cannot be decoded."""

    def __init__(self, name: str, why: str) -> None:
        self.name, self.why = name, why

    def load(self) -> Image.Image:
        raise DataError(self.why)

    def __str__(self) -> str:
        return self.name


def interval(text: str) -> Fraction:
    """Seconds from `1s`, `0.5s`, `500ms`, `2min`, `1h`, or a number. Raises DataError."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s?(ms|s|min|h)?", text.strip())
    seconds = Fraction(found[1]) * _UNITS[found[2] or ""] if found else Fraction(0)
    if seconds <= 0:
        raise DataError(f"--every must be a time such as 1s, 500ms or 2min; found {text!r}")
    return seconds


def check_video() -> None:
    """Raise MissingExtraError without PyAV; called before any work."""
    with extra("video", "frames of a film need PyAV ({})"):
        import av  # noqa: F401


def frames(path: Path, every: Fraction, name: str = "") -> Iterator[MadeImage]:
    """The first frame, and the first at or after each multiple of `every` seconds from it; none comes twice.

    Names are `film.mp4@12.000s`, with the time of the frame itself. Where a film cannot be read, has no frames or is
    damaged, a MissingFrames with the name of the film stands in the place of what is missing.
    """
    check_video()
    name, last = name or str(path), Fraction(-1)
    try:
        with open_regular(path) as stream:
            try_first(f"{__name__}:_look", str(path), memory=_MEMORY, seconds=_SECONDS)
            for last, image in _timed(stream, every):
                frame = Frame(f"{name}@{float(last):.3f}s", image)
                del image  # only its reader holds it while the next is decoded
                yield frame
                del frame
        if last < 0:
            yield MissingFrames(name, "it has no frames.")
    except OSError as error:
        yield MissingFrames(name, f"{reason(error)}.")
    except ValueError as error:  # of the first look, or ours
        seen = "" if last < 0 else f"no frames after {float(last):.3f} s: "
        yield MissingFrames(name, f"{seen}{str(error).rstrip('.')}.")


def _look(path: str) -> None:
    with open_regular(Path(path)) as stream:
        next(_timed(stream, Fraction(1)), None)


def _timed(stream: IO[bytes], every: Fraction) -> Iterator[tuple[Fraction, Image.Image]]:
    """The frames that are wanted: time in seconds from the first, and the image, upright.

    Waits while images that are not yet freed take HELD bytes.
    """
    import av

    first: Fraction | None = None
    slots: threading.Semaphore | None = None
    time, wanted = Fraction(-1), Fraction(0)
    unread = foreign(lambda why: DataError(f"damaged, or no film; expected {FILM_WORDS}"))
    with unread, av.open(stream, container_options=_OPTIONS) as film:
        for number, frame in enumerate(_decoded(film)):
            shown = _shown(frame, number, film.streams.video[0])
            first = shown if first is None else first
            time = max(time, shown - first)
            if time < wanted:
                continue
            wanted = (time // every + 1) * every
            slots = slots or threading.Semaphore(max(2, HELD // (3 * frame.width * frame.height)))
            slots.acquire()
            image = frame.to_image()
            if frame.rotation:  # as the camera was held
                image = image.rotate(frame.rotation, expand=True)
            weakref.finalize(image, slots.release).atexit = False
            yield time, image
            del image


def _shown(frame: Any, number: int, stream: Any) -> Fraction:
    """When a frame is shown, in seconds; by its number where the file does not say."""
    if frame.pts is None:
        return Fraction(number) / (stream.average_rate or 25)
    return Fraction(frame.pts) * Fraction(frame.time_base)


def _decoded(film: Any) -> Iterator[Any]:
    if not film.streams.video:
        return
    picture = film.streams.video[0]
    if picture.width * picture.height > MOST_PIXELS:
        raise DataError(
            f"its frames have {picture.width} x {picture.height} pixels, the limit is {MOST_PIXELS / 1e6:g} million"
        )
    picture.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # a frame may be larger than the header says
    picture.codec_context.thread_count = min(_THREADS, default_workers())
    picture.thread_type = "AUTO"
    yield from film.decode(picture)
