"""The figures of docs/serving.md: `python -m benchmarks.serving [--shape ViT-B-32] [--threads 1]`.

Made-up weights of a full-size shape, made-up adapters of DAPT's defaults for ten classes each, and the server's own
engine and batcher, without the HTTP and the decoding around them. Three things are measured:

    rate      images a second with 1, 10, 100 and 1,000 adapters mixed at random, every one of them in memory; rounds of
              the four take turns, and a ratio is the median over rounds of processor seconds, which other work on the
              machine changes little
    memory    of this process with 1,000 adapters, and of a fresh process with one adapter, times 1,000
    latency   at half and at twice the measured capacity, images arriving at random (Poisson); at twice, those that
              find no room in the queue are refused and counted

Prints a table, writes benchmarks/results/<date>-serving-<most adapters>.json.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import workload
from benchmarks.host import ROOT
from daptune.adapter.store import make_record, save_adapter
from daptune.clip.backbone import Backbone, load_backbone
from daptune.methods import METHODS
from daptune.serve.batcher import Batcher
from daptune.serve.counters import Counters
from daptune.serve.limits import Limits, Refused
from daptune.serve.pool import AdapterPool, Loaded

SHAPES = {"ViT-B-16": workload.VIT_B16, "ViT-B-32": workload.VIT_B16 | {"patch_size": 32}}
CLASSES = [f"thing {letter}" for letter in "abcdefghij"]
ADAPTERS = [1, 10, 100, 1000]


def make_backbone(shape: str, place: Path) -> Path:
    """A checkpoint of that shape."""
    path = place / "made-up.pt"
    torch.save(workload.weights(size=SHAPES[shape]), path)
    return path


def make_adapters(backbone: Backbone, place: Path, count: int) -> None:
    """`count` adapters that differ in every number."""
    for number in range(count):
        method = METHODS["dapt"](backbone, CLASSES, seed=number)
        save_adapter(place / f"adapter-{number:04d}", method, make_record(method, backbone))


def resident() -> int:
    """Bytes of this process that lie in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def one_batch(pool: AdapterPool, served: list[Loaded], image: Any, size: int, rng: random.Random) -> dict[str, float]:
    """Images a second through `AdapterPool.run` for a batch mixed at random: by the clock, and of processor time."""
    mixed = [rng.choice(served) for _ in range(size)]
    clock, processor = time.perf_counter(), time.process_time()
    answers = pool.run(mixed, [image] * size)
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return {"clock": size / clock, "processor": size / processor}


async def offered(pool: AdapterPool, served: list[Loaded], image: Any, rate: float, seconds: float) -> dict[str, Any]:
    """Latencies of single images that arrive at `rate` a second at random."""
    limits, rng = Limits(), random.Random(7)
    batcher = Batcher(pool.run, limits, Counters())
    batcher.start()
    latencies: list[float] = []
    refused = 0

    async def ask() -> None:
        nonlocal refused
        began = time.perf_counter()
        try:
            with batcher.room(1):
                await batcher.classify([rng.choice(served)], [image])
            latencies.append(time.perf_counter() - began)
        except Refused:
            refused += 1

    loop, started = asyncio.get_running_loop(), time.perf_counter()
    tasks, end, due = [], loop.time() + seconds, loop.time()
    while due < end:
        await asyncio.sleep(max(0.0, due - loop.time()))
        tasks.append(asyncio.create_task(ask()))
        due += rng.expovariate(rate)
    await asyncio.gather(*tasks)
    elapsed = time.perf_counter() - started
    await batcher.stop()
    found = np.quantile(latencies, [0.5, 0.95, 0.99])
    return {
        "offered_per_second": len(tasks) / seconds,
        "answered_per_second": len(latencies) / elapsed,
        "refused": refused / len(tasks),
        "seconds_p50_p95_p99": [round(float(x), 4) for x in found],
    }


def alone(backbone: Path, adapter: Path) -> None:
    """In a process of its own: one adapter, used once; prints the bytes in memory."""
    pool = AdapterPool(load_backbone(backbone, precision="fp32"))
    pool.add(adapter, "one")
    image = np.zeros((pool.backbone.preprocess.size,) * 2 + (3,), np.uint8)
    pool.run([pool.open("one")], [image])
    print(json.dumps({"bytes": resident()}))


def measure(shape: str, place: Path, *, rounds: int, batch: int, seconds: float) -> dict[str, Any]:
    """All of it."""
    checkpoint = make_backbone(shape, place)
    backbone = load_backbone(checkpoint, precision="fp32")
    shelf = place / "shelf"
    make_adapters(backbone, shelf, max(ADAPTERS))
    pool = AdapterPool(backbone, max_loaded=max(ADAPTERS))
    for folder in sorted(shelf.iterdir()):
        pool.add(folder, folder.name)
    image = np.random.default_rng(0).integers(0, 256, (backbone.preprocess.size,) * 2 + (3,), np.uint8)

    before = resident()
    served = [pool.open(each.name) for each in pool.adapters()]
    one_batch(pool, served, image, batch, random.Random(0))
    after = resident()

    rng = random.Random(1)
    rates: dict[int, list[dict[str, float]]] = {count: [] for count in ADAPTERS}
    for _ in range(rounds):
        for count in rng.sample(ADAPTERS, len(ADAPTERS)):
            rates[count].append(one_batch(pool, served[:count], image, batch, rng))
    capacity = statistics.median(each["clock"] for each in rates[max(ADAPTERS)])
    loads = {}
    for name, share in (("half", 0.5), ("twice", 2)):
        loads[name] = asyncio.run(offered(pool, served, image, share * capacity, seconds))

    command = [sys.executable, "-m", "benchmarks.serving", "--alone", str(checkpoint), str(shelf / "adapter-0000")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    single = json.loads(done.stdout)["bytes"]
    return {
        "shape": shape,
        "batch": batch,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "images_per_second": {
            clock: {count: statistics.median(each[clock] for each in rates[count]) for count in ADAPTERS}
            for clock in ("clock", "processor")
        },
        "ratio_to_one_adapter": {
            count: statistics.median(
                mine["processor"] / one["processor"] for mine, one in zip(rates[count], rates[1], strict=True)
            )
            for count in ADAPTERS
        },
        "all_rounds": rates,
        "bytes": {
            "server_with_all_adapters": after,
            "of_which_adapters": after - before,
            "process_with_one_adapter": single,
            "a_thousand_processes": 1000 * single,
        },
        "latency": loads,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=list(SHAPES), default="ViT-B-16")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--most", type=int, default=max(ADAPTERS), help="leave out the rows of more adapters")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--alone", nargs=2, type=Path, metavar=("BACKBONE", "ADAPTER"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    if words.alone:
        alone(*words.alone)
        return
    ADAPTERS[:] = [count for count in ADAPTERS if count <= words.most]
    with tempfile.TemporaryDirectory() as folder:
        load, place = os.getloadavg()[0], Path(folder)
        found = measure(words.shape, place, rounds=words.rounds, batch=words.batch, seconds=words.seconds)
    found |= {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load_before": load}
    found |= {"load_after": os.getloadavg()[0], "torch": torch.__version__}
    found |= {"date": datetime.now(UTC).date().isoformat()}
    target = ROOT / "benchmarks" / "results" / f"{found['date']}-serving-{max(ADAPTERS)}.json"
    target.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "all_rounds"}, indent=2))


if __name__ == "__main__":
    main()
