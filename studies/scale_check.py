"""The simulation of `studies.scale` beside a real Ray cluster of two nodes in this machine, of which one is killed.

    python -m studies.scale_check

The nodes classify nothing: a piece of 256 names takes a second of sleep, so that the rules are measured and not the
processor. The run is `ray_rows`; one node is killed in the middle. Times are from the first result, because until
then Ray starts its workers.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from daptune import cluster
from daptune.clip.preprocess import Preprocess
from daptune.data.stream import Decoded, Item
from daptune.predict.in_order import in_order
from daptune.predict.predictor import Answers, Predictor
from daptune.predict.ray_rows import PIECE, ray_rows
from daptune.predict.rows import Wanted
from studies.scale import Cluster, MadeUp

PIECES, SECONDS, KILLED = 60, 1.0, 10.0


class Sleeper(Predictor):
    """Takes its time, and answers the same for every name."""

    classes_ = np.array(["cat", "dog"])
    preprocess = Preprocess(size=1)
    scaled_decoding = False

    def probabilities(self, images: Any) -> Any:
        raise NotImplementedError("there are no pixels")

    def known(self, sources: Iterable[Any]) -> Any:
        return None

    def stream(self, sources: Iterable[Any]) -> Iterator[tuple[Decoded[Any], Any]]:
        numbered = enumerate(sources)
        while group := list(islice(numbered, PIECE)):
            time.sleep(SECONDS)
            places, found = zip(*group, strict=True)
            paths, names = tuple(item.source for item in found), tuple(item.name for item in found)
            batch = Decoded(places, paths, np.empty((len(group), 3, 1, 1), np.float32), (), names)
            yield batch, Answers(np.full((len(group), 2), 0.5, np.float32), None)


def measured(kill: bool) -> float:
    """Seconds of a real run from its first result."""
    ray = cluster.import_ray()
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, logging_level="ERROR", log_to_driver=False)
    try:
        names = [Item(f"{number:06}.jpg", Path(f"{number:06}.jpg")) for number in range(PIECES * PIECE)]
        stream = ray_rows(Sleeper, names, Wanted())
        rows, began = next(stream), time.monotonic()
        if kill:
            threading.Timer(KILLED, lambda: nodes.remove_node(second, allow_graceful=False)).start()
        rows = [*rows, *(row for part in stream for row in part)]
        took = time.monotonic() - began
        assert [row["file"] for row in rows] == [item.name for item in names]  # none lost, none twice
        return took
    finally:
        ray.shutdown()
        nodes.shutdown()


def simulated(kill: bool) -> float:
    """Seconds of the same run on the made-up clock, from its first result."""
    two = Cluster(machines=2, rate=PIECE / SECONDS, spread=0, slow=0, life=1e9, start=0)
    workers = MadeUp(two, np.random.default_rng(1), {1: (SECONDS + KILLED) / 3600} if kill else {})
    stream = in_order(range(PIECES), workers)
    next(stream)
    began = workers.time
    for _ in stream:
        pass
    return workers.time - began


if __name__ == "__main__":
    for kill in (False, True):
        about = f"one of two nodes killed after {KILLED:g} s" if kill else "two nodes"
        print(
            f"{PIECES} pieces, {about}: {measured(kill):.1f} s measured, {simulated(kill):.1f} s simulated", flush=True
        )
