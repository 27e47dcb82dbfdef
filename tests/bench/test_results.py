"""The file of results: what a kill leaves of it, and what is not put together."""

import json
from pathlib import Path
from typing import Any

import pytest

from daptune.bench.plan import Plan, parse_plan
from daptune.bench.results import RESULTS, Result, open_results, parse_results, read_results
from daptune.errors import DataError, PlanError

PLAN = parse_plan('name = "mine"\nmethods = ["zero_shot"]\ndatasets = ["demo"]\nseeds = [1, 2]', "mine")


def write(run: Path, plan: Plan = PLAN, **row: Any) -> None:
    with open_results(run, plan, plan.jobs()) as results:
        for job in plan.jobs():
            names = (job.method, job.label, job.dataset, job.shots, job.seed)
            results.add(Result(job.key, plan.name, job.experiment, *names, **row), {"adapter.json": b"x"})


def test_rows_are_read_back_and_the_last_of_a_key_counts(tmp_path: Path) -> None:
    write(tmp_path, status="failed")
    write(tmp_path)
    assert len((tmp_path / RESULTS).read_text().splitlines()) == 4
    rows = read_results(tmp_path)
    assert [row.status for row in rows] == ["done", "done"] and [row.seed for row in rows] == [1, 2]
    assert (tmp_path / "plan.toml").read_text() == PLAN.text
    assert (tmp_path / "adapters" / PLAN.jobs()[0].key / "adapter.json").read_bytes() == b"x"


@pytest.mark.parametrize("cut", [1, 20])
def test_a_half_written_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    write(tmp_path)
    path = tmp_path / RESULTS
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert len(read_results(tmp_path)) == (2 if cut == 1 else 1)  # without its end, a line may still be whole
    with open_results(tmp_path, PLAN, PLAN.jobs()) as results:
        assert [row.seed for row in results.rows.values()] == [1]
        results.add(Result.from_json(json.loads(whole.splitlines()[1]), "line 2"), {})
    assert path.read_bytes() == whole


def test_a_damaged_line_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path)
    path = tmp_path / RESULTS
    path.write_text("[1, 2]\nnonsense\n" + path.read_text())
    assert len(read_results(tmp_path)) == 2
    assert "line 1" in caplog.text and "line 2" in caplog.text


def test_results_of_another_plan_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    other = parse_plan(PLAN.text.replace("mine", "other"), "x")
    changed = parse_plan(PLAN.text.replace("[1, 2]", "[1, 3]"), "x")
    for plan, message in (
        (other, "results of the plan 'mine', not of 'other'"),
        (changed, "1 results that are not in the plan"),
    ):
        with pytest.raises(PlanError, match=message), open_results(tmp_path, plan, plan.jobs()):
            pass
    more = parse_plan(PLAN.text.replace("[1, 2]", "[1, 2, 3]"), "x")
    with open_results(tmp_path, more, more.jobs()) as results:  # what a plan gained is run
        assert len(results.rows) == 2


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with open_results(tmp_path, PLAN, PLAN.jobs()), pytest.raises(PlanError, match="this process is writing"):
        write(tmp_path)


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no results at"):
        read_results(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="cannot be written"):
        write(tmp_path / "file")


def test_map_is_stored_and_read_again() -> None:
    job = PLAN.jobs()[0]
    names = {name: getattr(job, name) for name in ("key", "plan", "experiment", "method", "label", "dataset", "shots")}
    result = Result(**names, seed=1, mean_average_precision={"test": 0.25})
    line = result.to_json()
    assert line["mean_average_precision"] == {"test": 0.25} and line["accuracy"] == {}
    again = Result.from_json(line, "here")
    assert again == result and (again.figure, again.scores) == ("mAP", {"test": 0.25})
    with pytest.raises(DataError, match="here: mean_average_precision of 'test' is 'high'; expected a number"):
        Result.from_json(line | {"mean_average_precision": {"test": "high"}}, "here")


def test_lines_that_version_0_1_wrote_are_read_and_written_alike(caplog: pytest.LogCaptureFixture) -> None:
    """Three finished jobs, one that failed, one on another domain, and a line that a kill cut off."""
    path = Path(__file__).with_name("results-0.1.jsonl")
    lines = parse_results(path.read_bytes(), path)
    assert (
        lines.cut_off and not lines.damaged and [row.done for row in lines.results] == [True, True, False, True, True]
    )
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()[:-1]]
    assert [row.to_json() for row in lines.results] == rows
    assert [list(row.to_json()) for row in lines.results] == [list(row) for row in rows]
    domain = lines.results[-1]
    assert (
        domain.targets == ("demo/fxemoji",) and domain.accuracy["demo/fxemoji"] == rows[-1]["accuracy"]["demo/fxemoji"]
    )
    assert "learning rate" in lines.results[2].error and not caplog.text
