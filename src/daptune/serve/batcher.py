"""Dynamic batching of images from many requests, with a bound on the waiting time."""

import asyncio
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from daptune.serve.counters import Counters
from daptune.serve.engine import Answer, Served
from daptune.serve.limits import Limits, Refused

BATCH_SECONDS = 0.2
"""About the longest pass of several images: where passes are slow, larger ones save little, and all images wait."""
Run = Callable[[Sequence[Any], Sequence[Any]], list[Answer | Exception]]


@dataclass(eq=False)
class Waiting:
    served: Served
    image: Any
    answer: asyncio.Future[Answer]
    arrived: float


class Batcher:
    """Runs batches one after another in a separate thread; used from one event loop.

    A batch has images of one `batch_key`, starting with the oldest image: up to `max_batch`, and no more than take
    `BATCH_SECONDS` at the rate of the batches before. It runs as soon as it is full, no other image is on its way, or
    its oldest image has waited for `max_wait_ms`. The next batch fills while one runs.
    """

    def __init__(self, run: Run, limits: Limits, counters: Counters) -> None:
        self._run, self._limits, self._counters = run, limits, counters
        self._waiting: dict[Hashable, list[Waiting]] = {}
        self._more = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "daptune-batch")
        self._worker: asyncio.Task[None] | None = None
        self._held = 0
        self._seconds_per_image = 0.005  # initial guess: the first batch may be a full one
        self.draining = False

    def start(self) -> None:
        """Start batching; to be called in the event loop."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    @contextmanager
    def room(self, images: int) -> Iterator[None]:
        """Reserve places in the queue for images before they are decoded. Raises `Refused` 503 or 413."""
        if images > self._limits.max_queue:
            raise Refused(413, f"the server accepts at most {self._limits.max_queue} images; send fewer at a time.")
        if self.draining:
            raise Refused(503, "the server is stopping.", retry_after=5)
        wait = self._held * self._seconds_per_image
        if self._held + images > self._limits.max_queue or wait > self._limits.timeout:  # later it would be 504
            raise Refused(503, f"{self._held} images are already waiting; try again later.", retry_after=max(1, wait))
        self._hold(images)
        try:
            yield
        finally:
            self._hold(-images)

    async def classify(self, served: Sequence[Served], images: Sequence[Any]) -> list[Answer]:
        """Answers to each image by the adapter at the same position; reserve `room` first.

        Raises the first error of the engine. On an error or cancellation, waiting images leave the queue.
        """
        loop = asyncio.get_running_loop()
        jobs = [Waiting(s, i, loop.create_future(), time.monotonic()) for s, i in zip(served, images, strict=True)]
        for job in jobs:
            self._waiting.setdefault(job.served.batch_key, []).append(job)
        self._more.set()
        try:
            return await asyncio.gather(*(job.answer for job in jobs))
        finally:
            for job in jobs:
                job.answer.cancel()

    async def stop(self) -> None:
        """Refuse new images, finish the accepted ones, end the thread."""
        self.draining = True
        self._more.set()
        while self._waiting:
            await asyncio.sleep(0.01)
        if self._worker is not None:
            self._worker.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    def _hold(self, images: int) -> None:
        self._held += images
        self._counters.queue.set(self._held)
        self._more.set()

    def _on_the_way(self) -> bool:
        """Whether images have room that do not wait yet, as those that are being decoded."""
        return self._held > sum(map(len, self._waiting.values()))

    async def _work(self) -> None:
        while True:
            key = self._next()
            if key is None:
                await self._more.wait()
                continue
            left = self._time_left(key)
            if left > 0 and self._on_the_way() and len(self._waiting[key]) < self._full() and not self.draining:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._more.wait()
                continue
            batch = self._waiting[key][: self._full()]
            del self._waiting[key][: len(batch)]
            await self._run_batch(batch)

    def _full(self) -> int:
        """Images of a batch that is full."""
        return max(1, min(self._limits.max_batch, int(BATCH_SECONDS / self._seconds_per_image)))

    def _next(self) -> Hashable | None:
        """Key of the next batch: that of the oldest image if its time is up, otherwise a full batch if there is one."""
        self._more.clear()
        for key in list(self._waiting):  # drop images of cancelled requests
            self._waiting[key] = [job for job in self._waiting[key] if not job.answer.done()]
            if not self._waiting[key]:
                del self._waiting[key]
        oldest = min(self._waiting, key=lambda key: self._waiting[key][0].arrived, default=None)
        if oldest is None or self._time_left(oldest) <= 0:
            return oldest
        full = (key for key, queue in self._waiting.items() if len(queue) >= self._full())
        return next(full, oldest)

    def _time_left(self, key: Hashable) -> float:
        return self._waiting[key][0].arrived + self._limits.max_wait_ms / 1000 - time.monotonic()

    async def _run_batch(self, batch: list[Waiting]) -> None:
        began = time.monotonic()
        served, images = [job.served for job in batch], [job.image for job in batch]
        answers: Sequence[Answer | Exception]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, served, images)
        except Exception as error:  # the requests of this batch fail; later batches still run
            answers = [error] * len(batch)
        seconds = time.monotonic() - began
        share = 1 - 0.9 ** len(batch)  # of what is known: an image counts a tenth
        self._seconds_per_image += share * (seconds / len(batch) - self._seconds_per_image)
        self._counters.images.inc(len(batch))
        self._counters.batch_images.observe(len(batch))
        self._counters.batch_adapters.observe(len({id(each) for each in served}))
        self._counters.batch_seconds.observe(seconds)
        for job, answer in zip(batch, answers, strict=True):
            if job.answer.done():
                continue
            if isinstance(answer, Exception):
                job.answer.set_exception(answer)
            else:
                job.answer.set_result(answer)
