"""Rows from a Ray cluster of two nodes in this machine, one of which is killed under way."""

import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daptune import cluster
from daptune.data.stream import Item
from daptune.errors import AdapterError, DataError, MissingExtraError
from daptune.predict.ray_rows import ray_rows
from daptune.predict.rows import Wanted, predict_rows

from . import fakes


def images(count: int) -> list[Item]:
    return [Item(f"row {number}", Path(f"{'bad ' if number % 7 == 3 else ''}{number}.png")) for number in range(count)]


def test_without_ray_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'daptune\[cluster\]'"):
        next(ray_rows(fakes.Fake, images(1), Wanted()))


def test_a_cluster_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise ConnectionError("Could not find\nany running instance")

    fake = SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setattr(cluster, "import_ray", lambda: fake)
    with pytest.raises(DataError, match=r"no Ray cluster could be reached.*Could not find any running.*RAY_ADDRESS"):
        next(ray_rows(fakes.Fake, images(1), Wanted()))


def doomed(folder: str) -> fakes.Fake:
    """A predictor that never ends a piece on the node that is to be killed, and says so in `folder`; the other node
    does three meanwhile, and no more."""

    class Fake(fakes.Fake):
        pieces = 0

        def stream(self, sources: Any) -> Any:
            self.pieces += 1
            hanging = Path(folder) / "hanging"
            if "DAPTUNE_TEST_DOOMED" in os.environ:
                hanging.touch()
                time.sleep(300)
            while self.pieces > 3 and not hanging.exists():
                time.sleep(0.02)
            return super().stream(sources)

    return Fake(2, 0.1)  # slow enough for both nodes to get pieces


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of ray's own
def test_a_node_dies_and_no_row_is_lost_or_twice(nodes: Any, tmp_path: Path) -> None:
    """It is killed in the middle of a piece, which another node has to do again."""
    expected = [row for rows in predict_rows(fakes.Fake(), images(150), Wanted(2)) for row in rows]
    node = next(iter(nodes.worker_nodes))

    def kill() -> None:
        while not (tmp_path / "hanging").exists():
            time.sleep(0.02)
        nodes.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    found = [row for rows in ray_rows(partial(doomed, str(tmp_path)), images(150), Wanted(2), piece=5) for row in rows]
    killer.join(60)
    assert (tmp_path / "hanging").exists() and len(nodes.list_all_nodes()) == 1
    assert found == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_a_worker_finds_wrong_comes_out_as_it_is(nodes: Any) -> None:
    def load() -> fakes.Fake:
        raise AdapterError("no adapter at nowhere")

    with pytest.raises(AdapterError, match=r"^no adapter at nowhere$"):
        next(ray_rows(load, images(3), Wanted()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_rows_of_unknown_images_and_sets_come_from_the_workers(nodes: Any) -> None:
    class Judge(fakes.Fake):
        truth = (0.2, 0.4, 0.6, 0.8)

    items = [Item(f"row {number}", Path(f"known {number / 100}")) for number in range(12)]
    wanted = Wanted(2, reject=0.05, sets=0.3)
    found = [row for rows in ray_rows(Judge, items, wanted, piece=5) for row in rows]
    assert [row["unknown"] for row in found] == [number <= 5 for number in range(1)] + [
        0 < number <= 5 for number in range(1, 12)
    ]
    assert [row["label"] == "unknown" for row in found] == [row["unknown"] for row in found]
    assert found == [row for rows in predict_rows(Judge(), items, wanted) for row in rows] and found[0]["set"]
    with pytest.raises(DataError, match="fit a method that learns prompts again"):
        next(ray_rows(fakes.Fake, items, wanted))
