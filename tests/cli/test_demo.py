"""`daptune demo` with few pictures."""

from typing import Any

import pytest

from daptune.cli import demo

from .conftest import Command


def test_demo_runs_from_beginning_to_end(daptune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one picture a class and a few to measure on; the whole of it is `make demo`."""
    whole = demo.demo_tables

    def few(*args: Any) -> Any:
        train, tests = whole(*args)
        return train, {style: table.subset(range(0, len(table), 20)) for style, table in tests.items()}

    monkeypatch.setattr(demo, "demo_tables", few)
    monkeypatch.setattr(demo, "SHOTS", 1)
    done = daptune("demo", "--epochs", "1")
    assert done.code == 0, done.err
    for words in ("zero-shot", "CoOp + VPT", "DAPT", "Three predictions", "daptune fit FOLDER", "ViT-B-16/openai"):
        assert words in done.out
    assert done.err == ""
    found = daptune("demo", "--epochs", "1", "--json").json
    assert set(found["accuracy"]) == {"zero_shot", "coop_vpt", "dapt"}
    assert len(found["accuracy"]["dapt"]) >= 4 and len(found["predictions"]) == 3
    assert daptune("show", found["adapter"]).code == 0
    assert daptune("demo", "--out", "daptune-demo/pictures/ATTRIBUTION.md").code == 2
