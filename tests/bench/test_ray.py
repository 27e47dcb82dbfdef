"""Jobs on a Ray cluster of two nodes, of which one is killed in the middle.

In a process of its own (ray_cluster.py): Ray leaves threads and sockets behind, which would be warnings here.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from daptune.bench.executors import RayCluster, Setting
from daptune.errors import MissingExtraError

SCRIPT = Path(__file__).with_name("ray_cluster.py")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
def test_a_node_that_is_killed_costs_nothing(made_up_backbone: str, pictures: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, str(SCRIPT), made_up_backbone, str(pictures), str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    lines = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert told["killed_after"] < len(lines) == told["jobs"] == 8
    assert len({line["key"] for line in lines}) == 8 and {line["status"] for line in lines} == {"done"}
    assert len(list((tmp_path / "run" / "adapters").iterdir())) == 8
    assert told["nodes_before"] == 2 and told["nodes_after"] == 1


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'daptune\[cluster\]'"):
        next(iter(RayCluster().run([], Setting(tmp_path))))
