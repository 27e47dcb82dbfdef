"""Rows from a Ray cluster of two nodes in this machine, one of which is killed under way."""

import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daptune.bulk import cluster
from daptune.bulk.cluster import ray_rows
from daptune.bulk.inputs import Item
from daptune.bulk.rows import predict_rows
from daptune.errors import AdapterError, DataError, MissingExtraError

from . import fakes


def images(count: int) -> list[Item]:
    return [Item(f"row {number}", Path(f"{'bad ' if number % 7 == 3 else ''}{number}.png")) for number in range(count)]


def test_without_ray_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'daptune\[cluster\]'"):
        next(ray_rows(fakes.Fake, images(1), 1))


def test_a_cluster_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise ConnectionError("Could not find\nany running instance")

    fake = SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setattr(cluster, "_import_ray", lambda: fake)
    with pytest.raises(DataError, match=r"no Ray cluster could be reached.*Could not find any running.*RAY_ADDRESS"):
        next(ray_rows(fakes.Fake, images(1), 1))


def slow_fake(folder: str) -> fakes.Fake:
    """A predictor that leaves the number of its process in `folder`."""
    import os

    (Path(folder) / str(os.getpid())).touch()
    return fakes.Fake(2, 0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of ray's own
def test_a_node_dies_and_no_row_is_lost_or_twice(nodes: Any, tmp_path: Path) -> None:
    load: Callable[[], fakes.Fake] = partial(slow_fake, str(tmp_path))
    expected = [row for rows in predict_rows(fakes.Fake(), images(150), 2) for row in rows]
    worker = next(iter(nodes.worker_nodes))
    found: list[dict[str, Any]] = []
    killer = None
    for rows in ray_rows(load, images(150), 2, piece=5):
        found += rows
        if len(list(tmp_path.iterdir())) == 2 and killer is None:  # both nodes are at work
            killer = threading.Thread(target=nodes.remove_node, args=(worker,), kwargs={"allow_graceful": False})
            killer.start()
    assert killer is not None, "one node did all of it"
    killer.join()
    assert len(nodes.list_all_nodes()) == 1
    assert found == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_a_worker_finds_wrong_comes_out_as_it_is(nodes: Any) -> None:
    def load() -> fakes.Fake:
        raise AdapterError("no adapter at nowhere")

    with pytest.raises(AdapterError, match=r"^no adapter at nowhere$"):
        next(ray_rows(load, images(3), 1))
