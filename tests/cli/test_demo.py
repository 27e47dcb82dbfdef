"""`daptune demo` with few pictures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daptune.classifier import load
from daptune.cli import demo

from .conftest import Command


@pytest.mark.parametrize("pictures", ["photographs", "emoji"])
def test_demo_runs_from_beginning_to_end(pictures: str, daptune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one picture a class and a few to measure on; the whole of it is `make demo`."""
    whole = demo.read_tasks

    def few(*args: Any) -> list[demo.Task]:
        tasks = whole(*args)
        some = [{name: table.subset(range(0, len(table), 20)) for name, table in task.tests.items()} for task in tasks]
        return [replace(task, tests=tests) for task, tests in zip(tasks, some, strict=True)]

    monkeypatch.setattr(demo, "read_tasks", few)
    monkeypatch.setitem(demo.SHOWS, pictures, replace(demo.SHOWS[pictures], shots=1))
    done = daptune("demo", "--pictures", pictures, "--epochs", "1")
    assert done.code == 0, done.err
    for words in ("zero-shot", "CoOp + VPT", "DAPT", "Three predictions", "daptune fit FOLDER", "ViT-B-16/openai"):
        assert words in done.out
    # without a terminal, a line every epoch and ten seconds says what is being done
    assert all(line.startswith("daptune: ") and line.isprintable() for line in done.err.splitlines())
    assert "warning" not in done.err
    found = daptune("demo", "--pictures", pictures, "--epochs", "1", "--json").json
    assert set(found["accuracy"]) == {"zero_shot", "coop_vpt", "dapt", "dapt_ensemble"}
    tasks = demo.read_tasks(pictures, Path("daptune-demo/pictures"))
    source, table = next(iter(tasks[0].tests.items()))
    saved, truth = load(found["adapter"]), np.array(table.class_names)[table.labels]
    for row in ("dapt_ensemble", "dapt"):
        right = float((saved.predict(table.images) == truth).mean())
        assert found["accuracy"][row][source] == pytest.approx(right)
        saved.method_.ensemble = None  # the learned prompts alone
    assert (
        list(found["accuracy"]["dapt"]) == [name for task in tasks for name in task.tests]
        and len(found["predictions"]) == 3
    )
    assert daptune("show", found["adapter"]).code == 0
    assert daptune("demo", "--out", "daptune-demo/pictures/ATTRIBUTION.md").code == 2
