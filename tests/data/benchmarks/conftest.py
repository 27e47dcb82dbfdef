from collections.abc import Callable
from pathlib import Path

import pytest

from daptune.data.benchmarks.registry import BENCHMARKS, Benchmark

from .trees import build

Small = Callable[[str], tuple[Benchmark, list[str]]]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """Builds a data set in miniature below tmp_path, and registers it with its own counts."""

    def make(name: str) -> tuple[Benchmark, list[str]]:
        record, names = build(name, tmp_path)
        monkeypatch.setitem(BENCHMARKS, name, record)
        return record, names

    return make
