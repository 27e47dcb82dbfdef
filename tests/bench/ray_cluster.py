"""Run by test_ray.py: a cluster of two nodes on this machine, a plan, and the second node killed while it works."""

import json
import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from daptune.bench.executors import RayCluster
from daptune.bench.plan import parse_plan
from daptune.bench.results import RESULTS
from daptune.bench.runner import run_plan
from tests.bench.helpers import small_plan


def main(backbone: str, pictures: str, run: str) -> None:
    text = small_plan(backbone, Path(pictures)).text.replace("epochs = 2", "epochs = 40")
    plan = parse_plan(text, "small")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1, include_dashboard=False)
    ray.init(address=cluster.address, log_to_driver=False)
    cluster.wait_for_nodes()
    told = {"jobs": len(plan.jobs()), "nodes_before": alive()}
    over = threading.Event()

    def kill() -> None:
        """As soon as both nodes work and a result is there."""
        results = Path(run, RESULTS)
        while not over.is_set():
            if results.exists() and results.stat().st_size and busy_nodes() == 2:
                told["killed_after"] = results.read_bytes().count(b"\n")
                cluster.remove_node(second, allow_graceful=False)
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    run_plan(plan, Path(run), root=Path(run), executor=RayCluster(cluster.address))
    over.set()
    killer.join()
    deadline = time.monotonic() + 60
    while alive() > 1 and time.monotonic() < deadline:  # it takes a moment until the loss is noted
        time.sleep(0.1)
    told["nodes_after"] = alive()
    ray.shutdown()
    cluster.shutdown()
    sys.stdout.write(json.dumps(told) + "\n")


def alive() -> int:
    return sum(node["Alive"] for node in ray.nodes())


def busy_nodes() -> int:
    """Nodes all of whose cores are taken."""
    from ray._private.state import available_resources_per_node

    return sum(not resources.get("CPU") for resources in available_resources_per_node().values())


if __name__ == "__main__":
    main(*sys.argv[1:])
