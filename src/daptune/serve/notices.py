"""The log of a server: each kind of line once a minute, and how many were like it. A flood fills no disk."""

import logging
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

EVERY = 60.0
"""Seconds from one line of a kind to the next."""
KINDS = 100
"""Kinds that are told apart; more are counted together."""
LONGEST = 2000
"""Characters of a line, its traceback aside."""
SOURCES = ("daptune", "uvicorn", "uvicorn.error", "asyncio")


@dataclass
class _Kind:
    text: str
    since: float
    more: int = 0


class Notices(logging.Handler):
    """A handler that writes the first record of a kind, and counts those that follow within `EVERY` seconds.

    Records are of a kind if their message has the same template: what is filled in does not count.
    """

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._write, self._clock = write, clock
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[0] if record.exc_info else None
        key: Hashable = (record.name, record.levelno, str(record.msg).partition("\n")[0], fault)
        now = self._clock()
        self.tell_counts()
        if key not in self._kinds and len(self._kinds) >= KINDS:
            key = None
        if (kind := self._kinds.get(key)) is not None:
            kind.more += 1
            return
        text = " ".join(record.getMessage().split())[:LONGEST]
        self._kinds[key] = _Kind(text, now)
        self._write(f"daptune: {record.levelname.lower()}: {text}")
        if record.exc_info and record.exc_info[1] is not None:
            self._write("".join(traceback.format_exception(record.exc_info[1])).rstrip())

    def tell_counts(self, *, at_end: bool = False) -> None:
        """Write the counts of kinds whose time is over, or of all, and begin them anew."""
        now = self._clock()
        self.acquire()
        try:
            for key, kind in list(self._kinds.items()):  # the oldest first
                if not at_end and now - kind.since < EVERY:
                    break
                del self._kinds[key]
                if kind.more:
                    self._write(f"daptune: {kind.more:,} more lines like this in {now - kind.since:.0f} s: {kind.text}")
                    self._kinds[key] = _Kind(kind.text, now)  # a flood that goes on is told by counts alone
        finally:
            self.release()


@contextmanager
def noticed(write: Callable[[str], object] | None = None) -> Iterator[Notices]:
    """Hand everything that a server logs to a `Notices` while the block runs; default: to stderr."""
    notices = Notices(write or (lambda text: sys.stderr.write(f"{text}\n")))
    before = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in SOURCES}
    for name in SOURCES:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [notices], False
    try:
        yield notices
    finally:
        notices.tell_counts(at_end=True)
        for name, (handlers, propagate) in before.items():
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = handlers, propagate
