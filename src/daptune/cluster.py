"""A Ray cluster for `--executor ray`: joined where there is one, else started on this machine alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from daptune.errors import DaptuneError, DataError, MissingExtraError

RETRIES = 5
"""How often a task is begun again whose worker or node dies."""


@contextmanager
def connected(address: str | None = None, error: type[DaptuneError] = DataError) -> Iterator[Any]:
    """The module `ray`, connected to a cluster; a connection that was made here ends with the block.

    The cluster: the one that this process is connected to, else the one at `address`, else the one that `RAY_ADDRESS`
    names or that runs on this machine, else a new one of this machine alone.
    Raises MissingExtraError without ray, and `error` where no cluster can be reached or started.
    """
    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address, logging_level="ERROR", log_to_driver=False, include_dashboard=False)
        except (OSError, RuntimeError, ValueError) as found:  # ConnectionError is an OSError
            what = f"reached at {address}" if address else "reached or started"
            why = " ".join(str(found).split())[:200]
            raise error(f"no Ray cluster could be {what} ({why}); RAY_ADDRESS names one") from None
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def import_ray() -> Any:
    """The module `ray`, without its usage statistics; raises MissingExtraError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.cloudpickle
        import ray.exceptions
    except ImportError:
        raise MissingExtraError("a Ray cluster needs ray: pip install 'daptune[cluster]'") from None
    return ray
