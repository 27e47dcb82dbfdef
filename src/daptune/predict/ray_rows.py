"""The rows of `predict_rows`, computed on a Ray cluster: one task per chunk of the stream, results in order.

Only the calling process writes rows, so a task that is retried on another node duplicates nothing. All nodes must see
adapter, backbone and images under the same paths; images stored in a Parquet table are sent with the task.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

from daptune.cluster import RETRIES, connected
from daptune.data.stream import Item
from daptune.errors import DaptuneError, DataError
from daptune.predict.predictor import Predictor
from daptune.predict.rows import Row, Wanted, batched, predict_rows

PIECE = 256  # images per task
CPUS = 4  # per task, if every node has that many
_AHEAD = 2  # tasks submitted per task that the cluster can run at a time


def ray_rows(
    load: Callable[[], Predictor], images: Iterable[Item], wanted: Wanted, *, piece: int = PIECE, gpu: bool = False
) -> Iterator[list[Row]]:
    """The rows of each chunk, in the order of the images. `load` makes the predictor, once in each worker.

    Raises MissingExtraError without ray, DataError without a cluster or if a chunk fails repeatedly, and what `load`
    raises.
    """
    with connected() as ray:
        cpus = _cpus_of_a_task(ray)
        run = ray.remote(num_cpus=cpus, num_gpus=int(gpu), max_retries=RETRIES)(_rows)
        pickled = ray.cloudpickle.dumps(load)  # bytes, because they are the key of the worker's cache
        begun: deque[Any] = deque()
        try:
            for part in batched(images, piece):
                begun.append(run.remote(pickled, part, wanted))
                if len(begun) >= _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 0) // cpus)):
                    yield _result(ray, begun)
            while begun:
                yield _result(ray, begun)
        finally:
            for waiting in begun:
                ray.cancel(waiting, force=True)


def _rows(pickled: bytes, part: list[Item], wanted: Wanted) -> list[Row]:
    return [row for rows in predict_rows(_predictor(pickled), part, wanted) for row in rows]


@lru_cache(maxsize=1)  # a worker runs many tasks
def _predictor(pickled: bytes) -> Predictor:
    from ray import cloudpickle

    predictor: Predictor = cloudpickle.loads(pickled)()
    return predictor


def _result(ray: Any, begun: "deque[Any]") -> list[Row]:
    try:
        rows: list[Row] = ray.get(begun.popleft())
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
