"""What Pillow and libtiff say of odd files: kept from stderr, counted, and told in one line of ours.

Pillow warns (with the path of its own source), logs, and has libtiff write to descriptor 2. While a thread decodes,
all three come here. Other threads, and Pillow in the hands of others, are as they were.
"""

import ctypes
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL
from PIL import Image

MOST = 10_000
"""Files that are remembered, so that none is told twice."""
_log = logging.getLogger("daptune")
_thread = threading.local()  # .lines: what is said during this thread's decoding
_lock = threading.Lock()
_odd: dict[str, str] = {}
_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)


@contextmanager
def heard(name: str) -> Iterator[None]:
    """Keep what is said of the file `name` while the block runs; it counts if the block decodes the file."""
    _listen()
    _thread.lines = []
    try:
        yield
        lines: list[str] = _thread.lines
    finally:
        _thread.lines = None
    if lines:
        with _lock:
            if len(_odd) < MOST:
                _odd.setdefault(name, lines[0])


@contextmanager
def telling() -> Iterator[None]:
    """One line in the log at the end of the block on the odd files that were first decoded in it."""
    with _lock:
        known = len(_odd)
    yield
    with _lock:
        fresh = list(_odd.items())[known:]
    if fresh:
        name, why = fresh[0]
        more = "1 image is" if len(fresh) == 1 else f"{len(fresh):,} images are"
        _log.warning("%s damaged or unusual, and read as far as possible: the first, %s (%s)", more, name, why)


def _hear(text: str) -> bool:
    """Keep a line if this thread decodes."""
    lines = getattr(_thread, "lines", None)
    if lines is None:
        return False
    lines.append(" ".join(text.split())[:120])
    return True


class _Hearing(logging.Handler):
    """Without a handler, logging would write to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        _hear(record.getMessage())


_handler = _Hearing(logging.WARNING)
_shown: Callable[..., Any] | None = None


def _show(message: Any, category: type[Warning], filename: str, lineno: int, *more: Any) -> None:
    ours = issubclass(category, Image.DecompressionBombWarning)  # images.decode has a limit of its own
    if getattr(_thread, "lines", None) is not None and (ours or _hear(str(message))):
        return
    if _shown is not None:
        _shown(message, category, filename, lineno, *more)


def _listen() -> None:
    """Put the ears in place; tests and other libraries may have taken them away."""
    global _shown
    if warnings.showwarning is _show and _handler in logging.getLogger("PIL").handlers and _always():
        return
    with _lock:
        if not _always():
            warnings.filterwarnings("always", module=r"PIL\.")  # each file counts, not the first of a kind alone
        if warnings.showwarning is not _show:
            _shown, warnings.showwarning = warnings.showwarning, _show  # type: ignore[assignment]
        if _handler not in logging.getLogger("PIL").handlers:
            logging.getLogger("PIL").addHandler(_handler)
            _take_from_libtiff()


def _always() -> bool:
    return any(entry[0] == "always" and entry[3] is not None and entry[3].match("PIL.") for entry in warnings.filters)


def _hear_libtiff(module: bytes, form: bytes, values: int) -> None:
    _hear((form or b"").decode("utf-8", "replace"))


_from_libtiff = _CALLBACK(_hear_libtiff)  # kept: libtiff calls it as long as the process lives


def _take_from_libtiff() -> None:
    """Hand libtiff's errors and warnings to this module; what it wrote went past Python, to descriptor 2."""
    for path in _libtiff():
        try:
            library = ctypes.CDLL(path)  # the one that Pillow has loaded
            for setter in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
                setter.restype, setter.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
                setter(ctypes.cast(_from_libtiff, ctypes.c_void_p))
        except (OSError, AttributeError):  # built in another way: its lines stay
            continue


def _libtiff() -> list[str]:
    """Paths of the libraries in this process, those beside Pillow if there are any."""
    try:
        maps = Path("/proc/self/maps").read_text("utf-8", "replace").splitlines()
    except OSError:
        return [str(path) for path in Path(PIL.__file__).parent.glob(".dylibs/libtiff*")]  # macOS
    loaded = {line.split(maxsplit=5)[-1] for line in maps if "libtiff" in line}
    return sorted(path for path in loaded if "pillow" in path.lower() or "/PIL/" in path) or sorted(loaded)
