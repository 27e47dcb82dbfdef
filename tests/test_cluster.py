"""Joining or starting a Ray cluster; what runs on one is tested with `predict` and `bench`."""

import sys
from types import SimpleNamespace

import pytest

from daptune import cluster
from daptune.errors import DataError, MissingExtraError, PlanError


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'daptune\[cluster\]'"), cluster.connected():
        pass


def test_a_cluster_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise ConnectionError("Could not find\nany running instance")

    monkeypatch.setattr(cluster, "import_ray", lambda: SimpleNamespace(is_initialized=lambda: False, init=init))
    reason = r"no Ray cluster could be reached or started \(Could not find any running.*\); set RAY_ADDRESS to"
    with pytest.raises(DataError, match=reason), cluster.connected():
        pass
    with pytest.raises(PlanError, match=r"reached at 1\.2\.3\.4:6379"), cluster.connected("1.2.3.4:6379", PlanError):
        pass


@pytest.mark.parametrize("connected", [True, False])
def test_only_a_connection_that_was_made_here_is_ended(monkeypatch: pytest.MonkeyPatch, connected: bool) -> None:
    calls: list[str] = []
    fake = SimpleNamespace(
        is_initialized=lambda: connected,
        init=lambda **options: calls.append(f"init {options['address']}"),
        shutdown=lambda: calls.append("shutdown"),
    )
    monkeypatch.setattr(cluster, "import_ray", lambda: fake)
    with cluster.connected("x:1") as ray:
        assert ray is fake
    assert calls == ([] if connected else ["init x:1", "shutdown"])
