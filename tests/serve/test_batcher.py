"""Batches: what goes together, how long it waits, and what happens when there is too much or an end."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from daptune.serve.batcher import Batcher
from daptune.serve.counters import Counters
from daptune.serve.limits import Limits, Refused


@dataclass(frozen=True)
class Fake:
    name: str
    batch_key: str = "shared"
    classes: Sequence[str] = ("a", "b")


class Engine:
    """Answers the image itself; remembers batches; may be slow or fail."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[tuple[str, Any]]] = []
        self.seconds = seconds

    def run(self, served: Sequence[Fake], images: Sequence[Any]) -> list[Any]:
        self.batches.append([(each.name, image) for each, image in zip(served, images, strict=True)])
        time.sleep(self.seconds)
        if "all" in images:
            raise RuntimeError("broken")
        return [RuntimeError("bad") if image == "bad" else np.array([image]) for image in images]


def batcher(engine: Engine, **limits: Any) -> Batcher:
    made = Batcher(engine.run, Limits(**limits), Counters())
    made.start()
    return made


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


class Slow(Engine):
    """Takes `seconds` for each image of a batch."""

    def run(self, served: Sequence[Fake], images: Sequence[Any]) -> list[Any]:
        time.sleep(self.seconds * (len(images) - 1))
        return super().run(served, images)


@pytest.mark.parametrize(("seconds", "most"), [(0.11, 1), (0.06, 3), (0.0, 8)])
def test_a_batch_takes_a_fifth_of_a_second_at_most_where_it_is_more_than_one_image(seconds: float, most: int) -> None:
    async def body() -> Engine:
        engine = Slow(seconds)
        made = batcher(engine, max_batch=8, max_wait_ms=20)
        for _ in range(3):  # what is known by these
            await made.classify([Fake("one")] * 8, list(range(8)))
        engine.batches.clear()
        await made.classify([Fake("one")] * 8, list(range(8)))
        await made.stop()
        return engine

    sizes = [len(batch) for batch in run(body()).batches]
    assert sum(sizes) == 8 and max(sizes) == most


def test_a_slow_engine_that_is_idle_lets_nothing_wait_for_others() -> None:
    async def body() -> float:
        made = batcher(Slow(0.11), max_batch=8, max_wait_ms=20)
        for _ in range(3):
            await made.classify([Fake("one")] * 8, list(range(8)))
        made._limits = Limits(max_batch=8, max_wait_ms=10_000)
        began = time.monotonic()
        await made.classify([Fake("one")], [0])
        await made.stop()
        return time.monotonic() - began

    assert run(body()) < 5


def test_waiting_images_of_one_key_go_together_up_to_the_limit() -> None:
    async def body() -> Engine:
        engine = Engine()
        made = batcher(engine, max_batch=4, max_wait_ms=30)
        one, two, other = Fake("one"), Fake("two"), Fake("other", "alone")
        answers = await asyncio.gather(
            made.classify([one, two], [1, 2]), made.classify([other], [3]), made.classify([one] * 3, [4, 5, 6])
        )
        assert [[int(x[0]) for x in each] for each in answers] == [[1, 2], [3], [4, 5, 6]]
        await made.stop()
        return engine

    batches = run(body()).batches
    assert [[image for _, image in batch] for batch in batches] == [[1, 2, 4, 5], [6], [3]] or sorted(
        len(batch) for batch in batches
    ) == [1, 1, 4]
    assert all(len({name == "other" for name, _ in batch}) == 1 for batch in batches)


def waited(max_wait_ms: float, on_the_way: int, gone_after: float | None = None) -> float:
    """Seconds until an image is answered while others, that never come, have room; or give it up after a time."""

    async def body() -> float:
        made = batcher(Engine(), max_batch=64, max_wait_ms=max_wait_ms)

        async def others() -> None:
            with made.room(on_the_way):
                await asyncio.sleep(20 if gone_after is None else gone_after)

        other = asyncio.create_task(others())
        await asyncio.sleep(0.01)
        began = time.monotonic()
        with made.room(1):
            await made.classify([Fake("one")], [1])
        found = time.monotonic() - began
        other.cancel()
        await made.stop()
        return found

    return float(run(body()))


def test_an_image_waits_for_those_on_their_way_and_no_longer_than_the_bound() -> None:
    assert 0.045 <= waited(50, on_the_way=2) < 1


def test_an_image_does_not_wait_where_no_other_is_on_its_way() -> None:
    assert waited(10_000, on_the_way=0) < 5


def test_an_image_waits_no_more_once_the_others_are_gone() -> None:
    assert 0.1 <= waited(10_000, on_the_way=2, gone_after=0.15) < 5


def test_a_full_batch_does_not_wait() -> None:
    async def body() -> float:
        made = batcher(Engine(), max_batch=2, max_wait_ms=10_000)
        began = time.monotonic()
        await made.classify([Fake("one")] * 2, [1, 2])
        await made.stop()
        return time.monotonic() - began

    assert run(body()) < 5


def test_the_oldest_goes_first_so_that_no_key_starves() -> None:
    async def body() -> list[str]:
        engine = Engine(0.02)
        made = batcher(engine, max_batch=2, max_wait_ms=1)
        busy = [asyncio.create_task(made.classify([Fake("busy")] * 2, [n, n])) for n in range(3)]
        await asyncio.sleep(0.005)
        rare = asyncio.create_task(made.classify([Fake("rare", "alone")], [9]))
        await asyncio.sleep(0.005)
        busy += [asyncio.create_task(made.classify([Fake("busy")] * 2, [n, n])) for n in range(6)]
        await asyncio.gather(rare, *busy)
        await made.stop()
        return [batch[0][0] for batch in engine.batches]

    order = run(body())
    assert len(order) == 10 and order.index("rare") <= 4


def test_no_room_is_refused_with_a_time_to_come_back() -> None:
    async def body() -> None:
        made = batcher(Engine(), max_queue=4)
        with made.room(3):
            with pytest.raises(Refused) as refused, made.room(2):
                pass
            assert refused.value.status == 503 and refused.value.retry_after >= 1
            with made.room(1):
                pass
        with pytest.raises(Refused) as refused, made.room(5):
            pass
        assert refused.value.status == 413
        with made.room(4):
            pass
        await made.stop()
        with pytest.raises(Refused, match="stopping"), made.room(1):
            pass

    run(body())


def test_a_queue_that_would_take_too_long_is_full() -> None:
    async def body() -> None:
        made = batcher(Engine(0.06), max_batch=1, max_wait_ms=0, timeout=1)
        with made.room(19):  # at first it is taken for faster
            pass
        for _ in range(20):
            await made.classify([Fake("one")], [1])
        with made.room(19):  # 19 * 0.06 s is more than the second that an answer may take
            with pytest.raises(Refused) as refused, made.room(1):
                pass
            assert refused.value.status == 503
        with made.room(2), made.room(1):
            pass
        await made.stop()

    run(body())


def test_an_error_reaches_its_own_request_and_the_next_batch_runs() -> None:
    async def body() -> None:
        made = batcher(Engine(), max_batch=2, max_wait_ms=20)
        good, bad = await asyncio.gather(
            made.classify([Fake("one")], [1]), made.classify([Fake("two")], ["bad"]), return_exceptions=True
        )
        assert int(good[0][0]) == 1 and isinstance(bad, RuntimeError) and str(bad) == "bad"
        with pytest.raises(RuntimeError, match="broken"):
            await made.classify([Fake("one")], ["all"])
        assert int((await made.classify([Fake("one")], [2]))[0][0]) == 2
        await made.stop()

    run(body())


def test_a_request_that_is_given_up_leaves_the_queue() -> None:
    async def body() -> Engine:
        engine = Engine(0.05)
        made = batcher(engine, max_batch=1, max_wait_ms=0)
        first = asyncio.create_task(made.classify([Fake("one")], [1]))
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await made.classify([Fake("one")] * 3, [2, 3, 4])
        await first
        await made.stop()
        return engine

    assert [image for batch in run(body()).batches for _, image in batch] == [1]


def test_stopping_finishes_what_was_accepted() -> None:
    async def body() -> list[int]:
        made = batcher(Engine(0.01), max_batch=1, max_wait_ms=10_000)
        task = asyncio.create_task(made.classify([Fake("one")] * 5, list(range(5))))
        await asyncio.sleep(0.005)
        await made.stop()
        return [int(answer[0]) for answer in await task]

    assert run(body()) == list(range(5))
