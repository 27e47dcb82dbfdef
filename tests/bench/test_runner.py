"""What is missing is run, once, whatever ended the last call."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from daptune.bench.executors import LocalProcesses, Setting
from daptune.bench.plan import Plan
from daptune.bench.results import RESULTS, read_results
from daptune.bench.runner import Step, by_training, run_plan
from daptune.cli import run as cli

from .helpers import TEXT, InThisProcess, small_plan


@pytest.fixture
def plan(made_up_backbone: str, pictures: Path) -> Plan:
    return small_plan(made_up_backbone, pictures)


def test_a_stopped_run_goes_on_and_nothing_is_run_twice(plan: Plan, tmp_path: Path) -> None:
    run, steps = tmp_path / "run", []
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, run, root=tmp_path, executor=InThisProcess(stop_after=3), tell=steps.append)
    assert len(read_results(run)) == 3 == len(steps)
    second = InThisProcess()
    rows = run_plan(plan, run, root=tmp_path, executor=second)
    assert len(second.given) == 5 and [row.key for row in rows] == [job.key for job in plan.jobs()]
    third = InThisProcess()
    assert run_plan(plan, run, root=tmp_path, executor=third) == rows and not third.given
    assert {path.name for path in (run / "adapters").iterdir()} == {job.key for job in plan.jobs()}
    whole = run_plan(plan, tmp_path / "other", root=tmp_path, executor=InThisProcess())
    same = ("key", "accuracy", "correct", "selected", "split_hash", "dispersion", "method_config", "train_config")
    assert [[getattr(row, name) for name in same] for row in rows] == [
        [getattr(row, name) for name in same] for row in whole
    ]


def test_failures_stop_nothing_and_are_tried_again_when_asked(plan: Plan, tmp_path: Path) -> None:
    part = plan.experiments[0]
    bad = replace(part.methods[1], label="bad", train={"epochs": 2, "batch_size": 4, "lr": 1e30})
    plan = replace(plan, experiments=(replace(part, shots=(1,), seeds=(1,), methods=(bad, part.methods[0])),))
    steps: list[Step] = []
    rows = run_plan(plan, tmp_path / "run", root=tmp_path, executor=InThisProcess(), tell=steps.append)
    assert [row.status for row in rows] == ["failed", "done"] and "learning rate" in rows[0].error
    assert (steps[-1].done, steps[-1].total, steps[-1].seconds_left) == (2, 2, 0)
    for retry, given in ((False, 0), (True, 1)):
        executor = InThisProcess()
        run_plan(plan, tmp_path / "run", root=tmp_path, executor=executor, retry=retry)
        assert len(executor.given) == given


def test_equal_trainings_are_put_together(plan: Plan) -> None:
    part = plan.experiments[0]
    twice = replace(plan, experiments=(part, replace(part, kind="comparison")))
    groups = by_training(twice.jobs())
    assert len(twice.jobs()) == 16 and len(groups) == 8
    assert all([job.experiment for job in group] == ["fewshot", "comparison"] for group in groups)


def test_a_process_that_dies_costs_its_own_jobs_alone(plan: Plan, tmp_path: Path) -> None:
    executor = LocalProcesses(1)
    groups = by_training(plan.jobs())[:2]
    found = {}
    running = executor.run(groups, Setting(tmp_path))

    def end() -> None:  # the iterator begins a process only when it is asked, so from beside
        while not executor._busy:
            time.sleep(0.01)
        os.kill(next(iter(executor._busy.values())).process.pid or 0, signal.SIGKILL)

    thread = threading.Thread(target=end)
    thread.start()
    for group, outcomes in running:
        found[group[0].key] = outcomes[0].result
    thread.join()
    first, second = (found[group[0].key] for group in groups)
    assert first.status == "failed" and "SIGKILL" in first.error and second.status == "done"


def test_kill_at_any_time_and_the_same_command_goes_on(
    made_up_backbone: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = tmp_path / "small.toml", tmp_path / "run"
    file.write_text(TEXT.format(backbone=made_up_backbone, pictures=pictures))
    words = ["bench", str(file), "--out", str(run), "--processes", "1"]
    process = subprocess.Popen([sys.executable, "-m", "daptune", *words], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not ((run / RESULTS).exists() and (run / RESULTS).stat().st_size):
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = (run / RESULTS).read_bytes()
    assert 1 <= before.count(b"\n") < 8, "it was killed in the middle"
    with (run / RESULTS).open("ab") as end:
        end.write(b'{"key": "half')
    assert cli([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["done"] == 8 and not found["failed"]
    assert found["tables"][0]["columns"] == ["method", "1 shot", "2 shots"]
    lines = (run / RESULTS).read_bytes()
    assert lines.startswith(before) and len({json.loads(line)["key"] for line in lines.splitlines()}) == 8
    assert lines.count(b"\n") == 8
