"""Pieces in order, on workers that exist on a made-up clock only."""

from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from daptune.predict.in_order import in_order


@dataclass
class MadeUp:
    """Workers that take `seconds(piece, attempt)` for an attempt, 1 or 2, on a clock that moves when they are asked."""

    seconds: Callable[[int, int], float]
    count: int = 4
    time: float = 0.0
    begun: list[int] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    most: int = 0
    ends: dict[int, float] = field(default_factory=dict)
    free: list[float] = field(default_factory=list)

    def slots(self) -> int:
        return self.count

    def begin(self, piece: int) -> int:
        self.begun.append(piece)
        self.free = self.free or [0.0] * self.count
        first = min(range(self.count), key=self.free.__getitem__)  # the worker that is free first
        self.free[first] = max(self.free[first], self.time) + self.seconds(piece, self.begun.count(piece))
        self.ends[len(self.begun) - 1] = self.free[first]
        return len(self.begun) - 1

    def ended(self, attempts: Collection[int], seconds: float) -> Collection[int]:
        self.most = max(self.most, len(attempts))
        self.time = min(self.time + seconds, max(self.time, min(self.ends[one] for one in attempts)))
        return [one for one in attempts if self.ends[one] <= self.time]

    def cancel(self, attempt: int) -> None:
        self.cancelled.append(attempt)
        place = self.free.index(self.ends[attempt])
        self.free[place] = self.time

    def now(self) -> float:
        return self.time


def done(workers: MadeUp, pieces: int) -> list[int]:
    """The pieces of the attempts that were yielded."""
    return [workers.begun[attempt] for attempt in in_order(range(pieces), workers)]


@pytest.mark.parametrize("count", [1, 3, 4])
def test_results_are_in_order_whatever_ends_first(count: int) -> None:
    workers = MadeUp(lambda piece, _: 1 + piece * 7 % 5 / 10, count)
    assert done(workers, 57) == list(range(57))
    assert workers.begun == list(range(57)) and not workers.cancelled  # nothing is late, nothing is done twice
    assert workers.most == 2 * count
    whole = sum(1 + piece * 7 % 5 / 10 for piece in range(57))
    assert workers.time < whole / count + 3  # none waited


def test_a_slow_piece_holds_nothing_up_and_is_done_by_another_in_the_end() -> None:
    """One attempt takes a hundred times as long: as no other, it is begun again, when no new one may begin."""
    workers = MadeUp(lambda piece, attempt: 100.0 if (piece, attempt) == (2, 1) else 1.0)
    assert done(workers, 61) == list(range(61))
    assert sorted(workers.begun) == sorted([*range(61), 2]) and workers.begun[-1] == 2
    assert [workers.begun[one] for one in workers.cancelled] == [2]
    assert workers.time <= 61 / 3 + 3  # three workers do all but one, and that one again


def test_what_waits_is_limited() -> None:
    """Behind a piece whose first attempt never ends, 32 pieces per worker are begun, and then that piece again."""
    workers = MadeUp(lambda piece, attempt: 1e6 if (piece, attempt) == (0, 1) else 1.0, count=2)
    asked: list[int] = []

    def pieces() -> Iterator[int]:
        for piece in range(1000):
            asked.append(piece)
            yield piece

    with closing(in_order(pieces(), workers)) as stream:
        assert workers.begun[next(stream)] == 0
    assert asked == list(range(64)) and workers.begun == [*asked, 0]
    assert workers.time == 64  # the other worker did them all


def test_both_attempts_may_end_at_once() -> None:
    workers = MadeUp(lambda piece, attempt: {(0, 1): 12.0, (0, 2): 1.0}.get((piece, attempt), 1.0), count=2)
    assert done(workers, 9) == list(range(9))


def test_nothing_to_do() -> None:
    assert done(MadeUp(lambda *_: 1.0), 0) == []


def test_workers_that_come_later_are_used() -> None:
    workers = MadeUp(lambda *_: 1.0, count=4)
    workers.free = [0.0] * 4
    found, slots = [], iter([0, 0, 1, 2])
    workers.slots = lambda: next(slots, 4)  # type: ignore[method-assign]
    for attempt in in_order(range(40), workers):
        found.append(workers.begun[attempt])
    assert found == list(range(40)) and workers.most == 8


def test_an_end_of_the_consumer_cancels_what_runs() -> None:
    workers = MadeUp(lambda *_: 1.0)
    stream = in_order(range(100), workers)
    next(stream)
    stream.close()
    assert len(workers.begun) == len(workers.cancelled) + 4  # the four that ended with the first
