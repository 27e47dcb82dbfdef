"""Ray cluster for `--executor ray`: an existing one, otherwise one started on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from daptune.errors import DaptuneError, DataError, extra

RETRIES = 5  # retries of a task whose worker or node dies


@contextmanager
def connected(address: str | None = None, error: type[DaptuneError] = DataError) -> Iterator[Any]:
    """The module `ray`, connected to a cluster; a connection opened here is closed after the block.

    In order of preference: the cluster this process is connected to, the one at `address`, the one named by
    `RAY_ADDRESS` or running on this machine, a new one on this machine.
    Raises MissingExtraError without ray, and `error` if no cluster can be reached or started.
    """
    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address, logging_level="ERROR", log_to_driver=False, include_dashboard=False)
        except (OSError, RuntimeError, ValueError) as found:  # ConnectionError is an OSError
            what = f"reached at {address}" if address else "reached or started"
            why = " ".join(str(found).split())[:200]
            raise error(f"no Ray cluster could be {what} ({why}); set RAY_ADDRESS to the address of one") from None
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def import_ray() -> Any:
    """The module `ray`, with its usage statistics switched off. Raises MissingExtraError without ray."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with extra("cluster", "a Ray cluster needs ray"):
        import ray
        import ray.cloudpickle
        import ray.exceptions
    return ray
