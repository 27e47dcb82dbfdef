"""A Ray cluster for the tests that need one."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from daptune import cluster


@pytest.fixture(scope="package")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes with a processor each in this machine, which this process is connected to.

    DAPTUNE_TEST_DOOMED is set on the second, for the test that kills it.
    """
    if find_spec("ray") is None:
        pytest.skip("ray is not installed")
    ray = cluster.import_ray()
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        made.add_node(num_cpus=1, env_vars={"DAPTUNE_TEST_DOOMED": "1"})
        ray.init(address=made.address, logging_level="ERROR", log_to_driver=False)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
