"""An ordered map over threads with bounded memory. Pillow releases the GIL."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from daptune.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

MOST_WORKERS = 16


def default_workers() -> int:
    """One thread per CPU available to this process, at most 16."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MOST_WORKERS)


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int | None = None,
    ahead: int = 64,
    initializer: Callable[[], None] | None = None,
) -> Generator[R, None, None]:
    """Yield function(item) in order, with at most `ahead` pending results.

    workers: threads; None: one per CPU, 0: none. Errors are raised in order of the items. Closing the iterator ends
        its threads.
    """
    if workers is not None and workers < 0:
        raise DataError(f"expected 0 or more workers, found {workers}.")
    if workers == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers or default_workers(), "daptune-data", initializer)
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
