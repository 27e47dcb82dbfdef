"""Images a second over HTTP: `python -m benchmarks.over_http --place build/waiting [--seconds 10] [--rounds 3]`.

`daptune serve` in a process of its own, with a made-up ViT-B/16 and one adapter of ten classes; 1, 8 and 64 clients
post JPEG photographs of 640 x 480 pixels, one a request, each as soon as the last is answered. Beside it, in the same
rounds while the server waits, the bare engine: the image tower and the adapter on decoded images, one at a time and 32
at a time. Then requests arrive at random (Poisson) at half the rate of 64 clients: how long is one answered in? PLACE
is that of benchmarks/waiting.py. With `--model FILE`, an exported model by OpenVINO in `--precision`. Writes
benchmarks/results/<date>-over-http.json.
"""

import argparse
import random
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.host import environment, keep
from benchmarks.waiting import prepared, ready, small_adapter
from daptune.clip.backbone import load_backbone
from daptune.serve.engine import OnnxEngine
from daptune.serve.pool import AdapterPool

CLIENTS, PORT, BOUNDARY = (1, 8, 64), 8742, "photograph"


def body_of(path: Path) -> bytes:
    """A multipart form with one file."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n'
    return head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + path.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()


class Client:
    """One connection that posts photographs in turn."""

    name = "adapter"

    def __init__(self, bodies: list[bytes], first: int) -> None:
        self.connection, self.bodies = HTTPConnection("127.0.0.1", PORT, timeout=120), cycle(bodies[first:] + bodies)

    def ask(self) -> float:
        """Seconds until the answer."""
        began, kind = time.perf_counter(), f"multipart/form-data; boundary={BOUNDARY}"
        self.connection.request("POST", f"/v1/adapters/{self.name}/predict", next(self.bodies), {"Content-Type": kind})
        response = self.connection.getresponse()
        found = response.read()
        if response.status != 200 or b"label" not in found:
            raise SystemExit(f"the server answered {response.status}: {found[:300]!r}")
        return time.perf_counter() - began


def posted(bodies: list[bytes], clients: int, seconds: float) -> tuple[float, list[float]]:
    """Images a second, and the seconds of each answer."""
    end, found, lock = time.perf_counter() + seconds, list[float](), threading.Lock()

    def work(first: int) -> None:
        client, own = Client(bodies, first), list[float]()
        while time.perf_counter() < end:
            own.append(client.ask())
        with lock:
            found.extend(own)

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(work, range(clients)))
    return len(found) / (time.perf_counter() - began), found


def arriving(bodies: list[bytes], rate: float, seconds: float) -> list[float]:
    """Seconds of each answer, counted from its arrival, where requests arrive at random."""
    rng, due, times = random.Random(7), 0.0, list[float]()
    while due < seconds:
        times.append(due)
        due += rng.expovariate(rate)
    began = time.perf_counter()

    def ask(at: float) -> float:
        Client(bodies, int(at)).ask()  # a connection of its own: the server closes idle ones
        return time.perf_counter() - began - at

    with ThreadPoolExecutor(64) as threads:
        waiting = []
        for at in times:
            time.sleep(max(0.0, began + at - time.perf_counter()))
            waiting.append(threads.submit(ask, at))
        return [each.result() for each in waiting]


def bare(pool: AdapterPool | OnnxEngine, batch: int, seconds: float) -> float:
    """Images a second of the engine without HTTP and decoding."""
    served: Any = pool.open(Client.name)
    size = served.preprocess.size
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        pool.run([served] * batch, [image] * batch)
        done += batch
    return done / (time.perf_counter() - began)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    weights, photographs = prepared(options.place, 10)
    bodies = [body_of(path) for path in sorted(photographs.rglob("*.jpg"))]
    command = [sys.executable, "-m", "daptune", "serve", "--port", str(PORT)]
    pool: AdapterPool | OnnxEngine
    if options.model is None:
        adapter = small_adapter(options.place, weights, photographs)
        backbone = load_backbone(weights)
        pool, precision = AdapterPool(backbone), backbone.precision
        pool.add(adapter, Client.name)
        command += [str(adapter)]
    else:
        Client.name, precision = options.model.stem, options.precision
        pool = OnnxEngine({Client.name: options.model}, engine="openvino", precision=precision)
        command += [str(options.model), "--engine", "openvino", "--precision", precision]
    rates: dict[str, list[float]] = {}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment()) as server:
        try:
            ready(PORT)
            posted(bodies, 8, 3.0)  # the first batches are not measured
            for batch in (1, 32):
                bare(pool, batch, 1.0)
            alone = list[float]()
            for _ in range(options.rounds):
                for batch in (1, 32):
                    rates.setdefault(f"engine, {batch} at a time", []).append(bare(pool, batch, options.seconds))
                for clients in CLIENTS:
                    rate, answered = posted(bodies, clients, options.seconds)
                    rates.setdefault(f"HTTP, {clients} clients", []).append(rate)
                    alone += answered if clients == 1 else []
            half = statistics.median(rates[f"HTTP, {CLIENTS[-1]} clients"]) / 2
            latencies = np.quantile(arriving(bodies, half, 3 * options.seconds), [0.5, 0.95]).tolist()
        finally:
            server.terminate()
    one = 1 / statistics.median(rates["engine, 1 at a time"])
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "rates": rates, "one_image": one}
    found |= {"precision": precision, "half": half, "latency_p50_p95": latencies}
    found |= {"one_client": statistics.median(alone)}
    base = rates["engine, 32 at a time"]
    for name, each in rates.items():
        shares = [a / b for a, b in zip(each, base, strict=True)]
        print(f"| {name} | {statistics.median(each):.1f} | {statistics.median(shares):.0%} |")
    print(f"one image: {one:.3f} s; one client: {found['one_client']:.3f} s; at {half:.1f} a second: {latencies}")
    keep("over-http", found, options.out)


if __name__ == "__main__":
    main()
