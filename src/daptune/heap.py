"""Memory that the process keeps for its next pass, in place of giving it back to the system.

glibc gives freed memory at the end of its heap back, and takes large pieces from the system each time. Each pass of a
tower then begins with pages that the system must clear: 160,000 in a step of 32 images by ViT-B/16, 7 % of its time.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
_MOST = 32 << 20
"""Bytes of a piece that is kept, the most that glibc takes here; larger ones come from the system each time."""
_LEFT = 64 << 20
"""Bytes that stay at the end of the heap otherwise, as where glibc chooses by the pieces that were freed."""
_kept = 0
_lock = Lock()


@contextmanager
def memory_kept() -> Iterator[None]:
    """Inside, freed memory stays with the process, of all threads; at the end it is given back. Only glibc does so."""
    global _kept
    mallopt = _function("mallopt")
    if mallopt is None:
        yield
        return
    with _lock:
        if not _kept:
            mallopt(_MMAP_THRESHOLD, _MOST)
            mallopt(_TRIM_THRESHOLD, -1)
        _kept += 1
    try:
        yield
    finally:
        with _lock:
            _kept -= 1
            if not _kept:
                mallopt(_TRIM_THRESHOLD, _LEFT)
                if (trim := _function("malloc_trim")) is not None:
                    trim(0)


def _function(name: str) -> "ctypes._NamedFuncPointer | None":
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), name, None)
