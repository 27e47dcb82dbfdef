"""Several ways to the same result, timed turn by turn in one process, so that what disturbs one disturbs all."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def by_turns(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run by turn. The first run of each belongs before."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(times: Sequence[float], own: Sequence[float], digits: int = 1) -> str:
    """How many times longer than `own`, by turn: median (smallest to largest)."""
    found = [a / b for a, b in zip(times, own, strict=True)]
    middle, low, high = (f"{value:.{digits}f}" for value in (statistics.median(found), min(found), max(found)))
    return f"{middle} ({low} to {high})"
