"""benchmarks/serving.py on a small shape: every figure of the table is there and can be what it says."""

from pathlib import Path

import pytest

from benchmarks import serving

from ..test_benchmarks import SMALL


def test_the_figures_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "ADAPTERS", [1, 3])
    monkeypatch.setitem(serving.SHAPES, "small", SMALL)
    found = serving.measure("small", tmp_path, rounds=2, batch=4, seconds=0.5)
    assert found["ratio_to_one_adapter"][1] == 1 and found["ratio_to_one_adapter"][3] > 0
    assert all(len(rates) == 2 for rates in found["all_rounds"].values())
    for row in found["latency"].values():
        p50, p95, p99 = row["seconds_p50_p95_p99"]
        assert row["answered_per_second"] > 0 and 0 <= row["refused"] < 1 and 0 < p50 <= p95 <= p99
    sizes = found["bytes"]
    assert sizes["a_thousand_processes"] == 1000 * sizes["process_with_one_adapter"] > sizes["server_with_all_adapters"]
