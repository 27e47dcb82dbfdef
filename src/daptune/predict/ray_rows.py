"""The rows of `predict_rows`, computed on a Ray cluster: one task per chunk of the stream, results in order.

Only the calling process writes rows, so a task that is retried on another node, or begun twice because it is late,
duplicates nothing. All nodes must see adapter, backbone and images under the same paths; images stored in a Parquet
table are sent with the task.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from functools import lru_cache
from typing import Any

from daptune.cluster import RETRIES, connected
from daptune.data.stream import Item
from daptune.errors import DaptuneError, DataError
from daptune.predict.in_order import in_order
from daptune.predict.predictor import Predictor
from daptune.predict.rows import Row, Wanted, batched, predict_rows

PIECE = 256  # images per task
CPUS = 4  # per task, if every node has that many


def ray_rows(
    load: Callable[[], Predictor], images: Iterable[Item], wanted: Wanted, *, piece: int = PIECE, gpu: bool = False
) -> Iterator[list[Row]]:
    """The rows of each chunk, in the order of the images. `load` makes the predictor, once in each worker.

    Raises MissingExtraError without ray, DataError without a cluster or if a chunk fails repeatedly, and what `load`
    raises.
    """
    with connected() as ray:
        pickled = ray.cloudpickle.dumps(load)  # bytes, because they are the key of the worker's cache
        with closing(in_order(batched(images, piece), _Tasks(ray, pickled, wanted, int(gpu)))) as tasks:
            for task in tasks:
                yield _result(ray, task)


class _Tasks:
    """Tasks on a cluster: `Workers` of lists of images."""

    def __init__(self, ray: Any, pickled: bytes, wanted: Wanted, gpus: int) -> None:
        self._ray, self._more = ray, (pickled, wanted)
        self._needs = {"CPU": _cpus_of_a_task(ray)} | ({"GPU": gpus} if gpus else {})
        self._run = ray.remote(num_cpus=self._needs["CPU"], num_gpus=gpus, max_retries=RETRIES)(_rows)

    def slots(self) -> int:
        there = self._ray.cluster_resources()
        return int(min(there.get(name, 0) // needed for name, needed in self._needs.items()))

    def begin(self, piece: list[Item]) -> Any:
        pickled, wanted = self._more
        return self._run.remote(pickled, piece, wanted)

    def ended(self, attempts: Collection[Any], seconds: float) -> Collection[Any]:
        ended, others = self._ray.wait(list(attempts), num_returns=1, timeout=seconds)
        if ended and others:
            ended += self._ray.wait(others, num_returns=len(others), timeout=0)[0]
        return ended

    def cancel(self, attempt: Any) -> None:
        self._ray.cancel(attempt, force=True)

    def now(self) -> float:
        return time.monotonic()


def _rows(pickled: bytes, part: list[Item], wanted: Wanted) -> list[Row]:
    return [row for rows in predict_rows(_predictor(pickled), part, wanted) for row in rows]


@lru_cache(maxsize=1)  # a worker runs many tasks
def _predictor(pickled: bytes) -> Predictor:
    from ray import cloudpickle

    predictor: Predictor = cloudpickle.loads(pickled)()
    return predictor


def _result(ray: Any, task: Any) -> list[Row]:
    try:
        rows: list[Row] = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, DaptuneError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise DataError(
            f"a task failed {RETRIES + 1} times ({str(error).splitlines()[0]}); check the cluster, then run the same "
            "command to resume"
        ) from None
    return rows


def _cpus_of_a_task(ray: Any) -> int:
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return int(min([CPUS, *(cpus for cpus in nodes if cpus >= 1)]))
