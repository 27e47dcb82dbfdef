"""A flood of log lines is a line and counts."""

import logging
from collections.abc import Iterator

import pytest

from daptune.serve.notices import EVERY, KINDS, Notices, noticed

log = logging.getLogger("daptune")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def heard() -> Iterator[tuple[list[str], Clock, Notices]]:
    lines: list[str] = []
    clock = Clock()
    notices = Notices(lines.append, clock)
    before = log.handlers
    log.handlers = [notices]
    yield lines, clock, notices
    log.handlers = before


def test_a_kind_is_told_once_a_minute_and_counted(heard: tuple[list[str], Clock, Notices]) -> None:
    lines, clock, notices = heard
    for number in range(1000):
        log.warning("client %d went away", number)
        log.error("another %s", number)
    assert lines == ["daptune: warning: client 0 went away", "daptune: error: another 0"]
    clock.now = EVERY
    notices.tell_counts()
    assert lines[2:] == [
        "daptune: 999 more lines like this in 60 s: client 0 went away",
        "daptune: 999 more lines like this in 60 s: another 0",
    ]
    log.warning("client %d went away", 1001)  # the flood goes on: counted
    assert len(lines) == 4
    clock.now = 3 * EVERY
    log.warning("client %d went away", 1002)
    assert lines[4:] == ["daptune: 1 more lines like this in 120 s: client 0 went away"]
    clock.now = 10 * EVERY
    notices.tell_counts()
    clock.now = 12 * EVERY
    log.warning("client %d went away", 1003)  # after a quiet time it is news again
    assert lines[-1] == "daptune: warning: client 1003 went away"


def test_kinds_are_bounded(heard: tuple[list[str], Clock, Notices]) -> None:
    lines, _, _ = heard
    for number in range(10 * KINDS):
        log.warning(f"kind {number}")
    assert len(lines) == KINDS + 1


def test_a_fault_has_its_traceback_once(heard: tuple[list[str], Clock, Notices]) -> None:
    lines, _, _ = heard
    for _ in range(50):
        try:
            raise ValueError("of the test")
        except ValueError:
            log.exception("failed")
    assert len(lines) == 2 and "Traceback" in lines[1] and "ValueError: of the test" in lines[1]


def test_counts_are_told_at_the_end_and_handlers_put_back() -> None:
    lines: list[str] = []
    before = log.handlers
    with noticed(lines.append):
        for name in ("daptune", "uvicorn.error", "asyncio"):
            for _ in range(5):
                logging.getLogger(name).error("x of %s", name)
    assert lines[:3] == [f"daptune: error: x of {name}" for name in ("daptune", "uvicorn.error", "asyncio")]
    assert [line.partition(":")[2][:7] for line in lines[3:]] == [" 4 more"] * 3
    assert log.handlers is before
