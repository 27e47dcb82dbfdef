"""`daptune demo` with few pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daptune.classifier import load
from daptune.cli import demo
from daptune.data.demo import demo_styles

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
    assert set(found["accuracy"]) == {"zero_shot", "coop_vpt", "dapt", "dapt_ensemble"}
    source, *_ = demo_styles()
    tables = demo.demo_tables(Path("daptune-demo/pictures"), source, [])[1]
    saved, truth = load(found["adapter"]), np.array(tables[source].class_names)[tables[source].labels]
    for row in ("dapt_ensemble", "dapt"):
        right = float((saved.predict(tables[source].images) == truth).mean())
        assert found["accuracy"][row][source] == pytest.approx(right)
        saved.method_.ensemble = None  # the learned prompts alone
    assert len(found["accuracy"]["dapt"]) >= 4 and len(found["predictions"]) == 3
    assert daptune("show", found["adapter"]).code == 0
    assert daptune("demo", "--out", "daptune-demo/pictures/ATTRIBUTION.md").code == 2
