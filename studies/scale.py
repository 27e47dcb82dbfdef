"""A billion images on a thousand machines, simulated: `python -m studies.scale [--machines 1000] [--images 1e9]`.

The rules are the product's own. Shards: process k reads every n-th name, writes its rows, and after the death of its
machine goes on from them (`predict --shard`). Ray: `daptune.predict.in_order` itself, on workers and a clock that are
made up. Speeds of machines, stragglers and deaths are drawn from a seed; costs of a name and a row are those of
`benchmarks.scale`. Prints how long each way takes beside the same work on machines that are all alike and never die.
"""

import argparse
import heapq
import math
import statistics
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from daptune.predict.in_order import in_order
from daptune.predict.ray_rows import PIECE

TICK = 0.05
"""Seconds within which ends are told of at once."""


@dataclass(frozen=True)
class Cluster:
    """Machines and what happens to them.

    rate       images a second of one machine; each does one piece at a time
    spread     standard deviation of the logarithm of a machine's speed
    slow       share of the machines that are `times` slower, all the time
    life       hours until a machine dies, on average; another takes its place after `absent` seconds
    start      seconds until a new process classifies
    name, row  seconds of processor time of a name of another share, and of a row that is matched
    """

    machines: int = 1000
    rate: float = 18.0
    spread: float = 0.1
    slow: float = 0.01
    times: float = 5.0
    life: float = 1000.0
    absent: float = 120.0
    start: float = 8.0
    name: float = 0.2e-6
    row: float = 10e-6

    def speeds(self, random: np.random.Generator) -> np.ndarray:
        """Images a second of each machine."""
        own = self.rate * np.exp(self.spread * random.standard_normal(self.machines))
        return np.where(random.random(self.machines) < self.slow, own / self.times, own)


def ideal(cluster: Cluster, images: float) -> float:
    """Hours on machines that are all alike and never die."""
    return images / (cluster.machines * cluster.rate) / 3600


def shards(cluster: Cluster, images: float, count: int, random: np.random.Generator) -> float:
    """Hours of `count` shards; a machine that is free takes the next, as a queue of jobs does."""
    free = [(0.0, machine) for machine in range(cluster.machines)]
    speeds, last = cluster.speeds(random), 0.0
    for _ in range(count):
        began, machine = heapq.heappop(free)
        done, clock, share = 0.0, began, images / count
        while done < share:
            clock += cluster.start + images * cluster.name + done * cluster.row
            needed = (share - done) / speeds[machine]
            alive = random.exponential(cluster.life * 3600)
            done, clock = (share, clock + needed) if alive > needed else (done + alive * speeds[machine], clock + alive)
            if done < share:
                clock += cluster.absent
        heapq.heappush(free, (clock, machine))
        last = max(last, clock)
    return last / 3600


@dataclass
class MadeUp:
    """`Workers` on a made-up clock: a piece goes to a free machine, and if that dies, as on Ray, to another.

    A machine that dies is replaced, but those of `deaths` (machine -> hour) are not.
    """

    cluster: Cluster
    random: np.random.Generator
    deaths: dict[int, float] = field(default_factory=dict)
    time: float = 0.0
    attempts: int = 0
    died: int = 0

    def __post_init__(self) -> None:
        self._speeds = self.cluster.speeds(self.random)
        self._free = deque(range(self.cluster.machines))
        self._queue: deque[int] = deque()
        self._events: list[tuple[float, int, int, bool]] = []  # when, attempt or 0, machine, whether that dies
        self._where: dict[int, int] = {}  # attempts that run, and where
        self._lost: set[int] = set()

    def slots(self) -> int:
        return self.cluster.machines - len(self._lost)

    def begin(self, piece: int) -> int:
        self.attempts += 1
        self._queue.append(self.attempts)
        self._assign()
        return self.attempts

    def ended(self, attempts: Collection[int], seconds: float) -> Collection[int]:
        until, found = self.time + seconds, []
        while self._events and self._events[0][0] <= until and not found:
            now = self._events[0][0] + TICK
            while self._events and self._events[0][0] <= now:
                self.time, attempt, machine, dies = heapq.heappop(self._events)
                if attempt and self._where.pop(attempt, None) is None:
                    continue  # cancelled
                if dies:
                    self._bury(attempt, machine)
                    continue
                self._free.append(machine)
                if attempt:
                    found.append(attempt)
            self._assign()
        self.time = self.time if found else until
        return found

    def cancel(self, attempt: int) -> None:
        if (machine := self._where.pop(attempt, None)) is not None:  # its process ends, and another one starts
            heapq.heappush(self._events, (self.time + self.cluster.start, 0, machine, False))
        elif attempt in self._queue:
            self._queue.remove(attempt)

    def now(self) -> float:
        return self.time

    def _assign(self) -> None:
        while self._free and self._queue:
            attempt, machine = self._queue.popleft(), self._free.popleft()
            seconds = PIECE / self._speeds[machine] * self.random.uniform(0.9, 1.1)
            alive = self.random.exponential(self.cluster.life * 3600)
            if machine in self.deaths:
                alive = max(0.0, self.deaths[machine] * 3600 - self.time)
            self._where[attempt] = machine
            heapq.heappush(self._events, (self.time + min(seconds, alive), attempt, machine, alive < seconds))

    def _bury(self, attempt: int, machine: int) -> None:
        self.died += 1
        self._where.pop(attempt, None)
        self._queue.appendleft(attempt)
        if machine in self.deaths:
            self._lost.add(machine)
        else:
            heapq.heappush(self._events, (self.time + self.cluster.absent, 0, machine, False))


def on_ray(cluster: Cluster, images: float, random: np.random.Generator, **limits: float) -> tuple[float, MadeUp]:
    """Hours of one run that a driver gives to the machines in pieces, and its workers at the end."""
    workers = MadeUp(cluster, random)
    for _ in in_order(range(int(images // PIECE)), workers, **limits):  # type: ignore[arg-type]
        pass
    return workers.time / 3600, workers


CLUSTERS = {
    "all alike, none dies": Cluster(spread=0, slow=0, life=1e9),
    "speeds differ by 10 %": Cluster(slow=0, life=1e9),
    "and 1 in 100 is 5 times slower": Cluster(life=1e9),
    "and each dies every 1,000 hours": Cluster(),
    "and each dies every 24 hours": Cluster(life=24),
}
EARLIER = {"waiting": 2, "late": math.inf}
"""Until the rules of `in_order`, two tasks per worker were begun behind the oldest, and none twice."""


def table(images: float, machines: int, seeds: Sequence[int]) -> str:
    """Markdown: hours as a multiple of the ideal, mean over seeds."""
    ways: dict[str, Callable[[Cluster, np.random.Generator], float]] = {
        "a shard a machine": lambda c, random: shards(c, images, machines, random),
        "20 shards a machine": lambda c, random: shards(c, images, 20 * machines, random),
        "Ray, earlier rules": lambda c, random: on_ray(c, images, random, **EARLIER)[0],
        "Ray": lambda c, random: on_ray(c, images, random)[0],
    }
    lines = ["| machines | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
    for name, given in CLUSTERS.items():
        cluster = replace(given, machines=machines)
        best = ideal(cluster, images)
        cells = [
            statistics.mean(way(cluster, np.random.default_rng(seed)) / best for seed in seeds) for way in ways.values()
        ]
        lines.append(f"| {name} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, or compare with a cluster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=float, default=1e9)
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    print(f"ideal: {ideal(replace(Cluster(), machines=options.machines), options.images):.1f} hours\n")
    print(table(options.images, options.machines, options.seeds))


if __name__ == "__main__":
    main()
