"""How many connections a server may have; what becomes of them is tried in tests/attack/test_soak.py."""

import resource

import pytest

from daptune.serve import connections
from daptune.serve.connections import Room, descriptors
from daptune.serve.counters import Counters
from daptune.serve.guard import Guard
from daptune.serve.limits import Limits


def test_descriptors_are_those_of_the_system() -> None:
    assert descriptors() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@pytest.mark.parametrize(
    ("allowed", "limits", "most", "held"),
    [
        (1024, {}, 512, 256_000_000),
        (256, {}, 128, 64_000_000),
        (64, {}, 32, 32_000_000),  # one body at least
        (1_000_000, {}, 1000, 256_000_000),
        (1_000_000, {"max_connections": 5000, "max_bytes": 10**9}, 5000, 10**9),
    ],
)
def test_half_may_be_connections_and_a_quarter_uploads(
    monkeypatch: pytest.MonkeyPatch, allowed: int, limits: dict[str, int], most: int, held: int
) -> None:
    monkeypatch.setattr(connections, "descriptors", lambda: allowed)
    monkeypatch.setattr("daptune.serve.guard.descriptors", lambda: allowed)
    counters = Counters()
    assert Room.of(Limits(**limits), counters).most == most
    guard = Guard(None, token=None, limits=Limits(**limits), counters=counters)  # type: ignore[arg-type]
    assert guard._most_held == held
