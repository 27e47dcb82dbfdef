"""Pieces of work that many workers do at once, with results in the order of the pieces.

What `ray_rows` decides and the simulation of docs/scale.md uses: how many pieces are begun, and which are begun again.
"""

import statistics
from collections import deque
from collections.abc import Collection, Generator, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

P = TypeVar("P")
P_contra = TypeVar("P_contra", contravariant=True)
R = TypeVar("R", bound=Hashable)
AHEAD = 2
"""Pieces begun per piece that the workers can do at once, so that none waits for the next."""
WAITING = 32
"""Pieces per such piece that may wait for an earlier one to be done: what a slow worker may hold up."""
LATE = 3.0
"""A piece that takes this many times as long as usual is begun once more, elsewhere, when nothing new may begin."""
KNOWN = 101
"""Pieces of which what is usual is the median."""
LOOK = 1.0
"""Seconds between two looks at what is late."""


class Workers(Protocol[P_contra, R]):
    """Who does the pieces; an attempt at one is an R."""

    def slots(self) -> int:
        """Pieces that can be done at once, now."""

    def begin(self, piece: P_contra) -> R: ...

    def ended(self, attempts: Collection[R], seconds: float) -> Collection[R]:
        """Those that ended, of attempts that have not been told of; waits for one, so many seconds at most."""

    def cancel(self, attempt: R) -> None: ...

    def now(self) -> float:
        """Seconds on a clock."""


@dataclass(eq=False)
class _Piece(Generic[P, R]):
    piece: P
    attempts: list[R]
    begun: float
    ended: R | None = None


def in_order(
    pieces: Iterable[P], workers: Workers[P, R], *, waiting: int = WAITING, late: float = LATE
) -> Generator[R]:
    """For each piece, in order, the attempt at it that ended first; ended may also mean failed."""
    pieces, more = iter(pieces), True
    held: deque[_Piece[P, R]] = deque()  # begun, and not yet yielded
    running: dict[R, _Piece[P, R]] = {}
    took: deque[float] = deque(maxlen=KNOWN)
    try:
        while True:
            slots = max(1, workers.slots())
            while more and len(running) < AHEAD * slots and len(held) < waiting * slots:
                for piece in pieces:
                    held.append(_Piece(piece, [workers.begin(piece)], workers.now()))
                    running[held[-1].attempts[0]] = held[-1]
                    break
                else:
                    more = False
            if not held:
                return
            if took and len(running) < AHEAD * slots:
                _begin_again(running, workers, statistics.median(took) * late, AHEAD * slots - len(running))
            for attempt in workers.ended(running.keys(), LOOK):
                if (done := running.pop(attempt, None)) is None:
                    continue  # the other attempt at it ended too
                took.append(workers.now() - done.begun)
                done.ended = attempt
                for other in done.attempts:
                    if running.pop(other, None) is not None:
                        workers.cancel(other)
            while held and (first := held[0].ended) is not None:
                held.popleft()
                yield first
    finally:
        for attempt in running:
            workers.cancel(attempt)


def _begin_again(running: dict[R, _Piece[P, R]], workers: Workers[P, R], late: float, most: int) -> None:
    """Begin the pieces once more that began longer ago than `late` seconds, the oldest first."""
    begun = workers.now() - late
    slow = [one for one in running.values() if one.begun < begun and len(one.attempts) == 1]
    for one in slow[:most]:
        one.attempts.append(workers.begin(one.piece))
        running[one.attempts[-1]] = one
