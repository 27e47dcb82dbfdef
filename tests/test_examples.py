"""The notebook runs, cell by cell in one process, on a few pictures of the demo."""

import json
import shutil
from pathlib import Path

import pytest

from daptune.methods import METHODS
from tests.test_readme import folders  # noqa: F401

NOTEBOOK = Path(__file__).parent.parent / "examples" / "own_photographs.ipynb"
CELLS = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]


@pytest.mark.slow
def test_the_notebook_runs(
    folders: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, *others = sorted((folders / "pictures").iterdir())
    shutil.rmtree(first)
    for folder in others:  # three classes of six pictures are enough to run it
        for path in sorted(folder.iterdir())[6:]:
            path.unlink()
    monkeypatch.setattr("daptune.train.schedule.DEFAULT_STEPS", 4)
    space: dict[str, object] = {"__name__": "notebook"}
    try:
        said = []
        for number, cell in enumerate(CELLS):
            if cell["cell_type"] == "code":
                source = "".join(cell["source"]).replace('backbone="auto"', 'backbone="tiny"')  # quicker
                exec(compile(source, f"cell {number}", "exec"), space)
                said.append(capsys.readouterr().out)
    finally:
        METHODS.pop("class_temperature", None)
    assert len(said[0].splitlines()) == 3  # classes
    assert said[2].startswith("tiny: ") and "held-out images are right" in said[2]
    compared = [line.split()[0] for line in said[4].splitlines()]
    assert compared == ["zero_shot", "prototype", "linear_probe", "coop", "chosen:"]
    assert [line.split()[0] for line in said[5].splitlines()] == ["zero_shot", "class_temperature"]
    assert len(said[6].splitlines()) == 3 and Path("my-adapter/adapter.json").is_file()


def test_the_notebook_is_kept_without_results() -> None:
    """Results differ by machine and hide what changed."""
    for cell in CELLS:
        if cell["cell_type"] == "code":
            assert cell["execution_count"] is None and cell["outputs"] == []
