"""The folder of a run: one writer, and nothing of a run that came to nothing."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from daptune.errors import TrainingError
from daptune.train.checkpoint import FILE_NAME
from daptune.train.folder import CHOICE, FINISHED, LOCK, finish, finished, run_folder

from .small import CONFIG, SmallMethod, train

HOLDER = """
import sys, time
from pathlib import Path
from daptune.locks import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


class Failing(SmallMethod):
    """Its first loss is not a number."""

    def losses(self, images, labels):
        return {name: value * float("nan") for name, value in super().losses(images, labels).items()}


def test_a_run_that_fails_at_once_leaves_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match="stopped at step 1"):
        train(run, method=Failing())
    assert not run.exists()
    train(run)
    kept = (run / "history.jsonl").read_bytes()
    finish(run, tmp_path / "adapter", "0" * 64, {"epochs": 3})
    assert not (run / FILE_NAME).exists()
    with pytest.raises(TrainingError, match="stopped at step 1"):
        train(run, method=Failing())
    assert (run / "history.jsonl").read_bytes() == kept, "what an earlier run left is not touched"
    assert finished(run) == {
        "adapter": str(tmp_path / "adapter"),
        "tensors_sha256": "0" * 64,
        "settings": {"epochs": 3},
    }


def test_the_next_run_takes_the_place_of_a_finished_one(tmp_path: Path) -> None:
    train(tmp_path)
    finish(tmp_path, tmp_path / "adapter", "0" * 64, {})
    train(tmp_path, config=replace(CONFIG, epochs=1, warmup_epochs=0))
    assert not (tmp_path / FINISHED).exists() and (tmp_path / FILE_NAME).exists()
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1
    assert finished(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", '{"adapter": 1}', '{"adapter": "a", "tensors_sha256": "b"}'])
def test_a_damaged_note_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / FINISHED).write_text(content)
    assert finished(tmp_path) is None


def test_one_process_writes_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl")
    monkeypatch.setattr("daptune.train.folder.PATIENCE", 0.05)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path / LOCK)]
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        for resume in (False, True):
            with pytest.raises(TrainingError, match=rf"process {holder.pid} is writing to the run in .*--run-dir"):
                train(tmp_path, resume=resume)
        holder.kill()
    train(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {FILE_NAME, "history.jsonl"}


def test_one_thread_may_hold_it_twice_and_another_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daptune.train.folder.PATIENCE", 0.05)
    told: list[str] = []

    def other() -> None:
        try:
            train(tmp_path)
        except TrainingError as error:
            told.append(str(error))

    with run_folder(tmp_path):
        train(tmp_path)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(told) == 1 and "this process is writing to the run" in told[0]


def test_messages_say_how_to_start_anew(tmp_path: Path) -> None:
    train(tmp_path)
    anew = rf"to start anew, name another folder with --run-dir, or remove {tmp_path}"
    with pytest.raises(TrainingError, match=f"already holds a run; continue it with --resume .*; {anew}"):
        train(tmp_path)
    with pytest.raises(TrainingError, match=f"different settings: .*; use the same ones with --resume; {anew}"):
        train(tmp_path, config=replace(CONFIG, seed=6), resume=True)


def test_half_written_files_and_the_choice_of_a_failed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / f".{FILE_NAME}.new").write_text("half")
    (tmp_path / CHOICE).write_text("{}")
    with pytest.raises(ZeroDivisionError), run_folder(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {LOCK, CHOICE}
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
