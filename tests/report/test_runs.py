"""Results as `daptune bench` leaves them, also when it was interrupted, and files that are none."""

import json
from pathlib import Path

import pytest

from daptune.errors import DataError
from daptune.report.runs import read_runs

from .made_up import line, write_run

GOOD = line("fewshot", "dapt", "demo", 16, 1, {"test": 0.5})


def test_what_a_line_holds(tmp_path: Path) -> None:
    found = read_runs([write_run(tmp_path / "run", [GOOD])])
    (result,) = found.results
    assert (result.label, result.dataset, result.shots, result.seed) == ("dapt", "demo", 16, 1)
    assert result.accuracy["test"] == GOOD["correct"]["test"].count("1") / len(GOOD["correct"]["test"])
    assert result.targets == () and result.run == tmp_path / "run"


def test_several_runs_together_and_the_last_line_of_a_job_counts(tmp_path: Path) -> None:
    failed = {**GOOD, "status": "failed", "error": "out of\nmemory"}
    again = {**GOOD, "seconds": 99.0}
    first = write_run(tmp_path / "a", [failed, GOOD, again])
    other = {**failed, "key": "ff", "seed": 2}
    second = write_run(tmp_path / "b", [other])
    found = read_runs([first, second])
    assert [result.seconds for result in found.results] == [99.0]
    assert [(failure.seed, failure.error) for failure in found.failures] == [(2, "out of memory")]


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [GOOD])
    with open(run / "results.jsonl", "a", encoding="utf-8") as file:
        file.write('{"format": 1, "key": "ab')
    found = read_runs([run])
    assert len(found.results) == 1 and "is incomplete" in found.notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "line 1: format 2 is newer"),
        ({"format": None}, "line 1: expected format 1, found None"),
        ({"accuracy": {"test": "high"}}, "accuracy of 'test' is 'high'"),
        ({"correct": {"test": "012"}}, "'correct' of 'test' must be"),
        ({"dataset": 3}, "'dataset' is '3'"),
        ({"shots": True}, "'shots' is 'True'"),
        ({"key": "../../etc"}, "is not the key of a job"),
    ],
)
def test_a_line_that_is_no_result_is_told(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_runs([write_run(tmp_path / "run", [{**GOOD, **change}, GOOD])])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_broken_json_in_the_middle_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [])
    (run / "results.jsonl").write_text("{\n" + json.dumps(GOOD) + "\n", "utf-8")
    with pytest.raises(DataError, match="line 1: not JSON"):
        read_runs([run])


def test_nothing_finished_is_told_with_the_reason_of_a_failure(tmp_path: Path) -> None:
    failed = {**GOOD, "status": "failed", "error": "the disk is full"}
    with pytest.raises(DataError, match=r"no finished result.*1 jobs failed.*the disk is full"):
        read_runs([write_run(tmp_path / "run", [failed])])
