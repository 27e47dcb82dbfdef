"""Freed memory stays with the process inside `memory_kept`, and is given back at its end."""

import ctypes
import sys

import pytest

from daptune import heap
from daptune.heap import memory_kept

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="memory of glibc"
)
PIECE, COUNT = 20_000_000, 20
"""Bytes, of more than 20 pieces of which the system would clear the pages each time."""


def faults() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def use() -> int:
    """How many pages the system had to clear to fill pieces that are then freed."""
    before = faults()
    pieces = [b"1" * PIECE for _ in range(COUNT)]
    found = faults() - before
    del pieces
    return found


def resident() -> int:
    """Bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_memory_is_cleared_once_and_given_back() -> None:
    with memory_kept():
        use()
        with memory_kept():  # as `predict` in the midst of a training
            inside = use()
        after_it = use()  # the inner end changes nothing
        kept = resident()
    assert kept - resident() > 0.8 * PIECE * COUNT
    assert max(inside, after_it) < use() / 10


def test_nothing_is_asked_of_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with memory_kept():
        assert not heap._kept
