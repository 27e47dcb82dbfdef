"""Two processes that train together end where one does."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch

from daptune.cli import run as cli
from daptune.errors import DataError
from daptune.train.history import HISTORY_NAME, History
from daptune.train.parallel import Ranks, launch

from .two_ranks import RUNS, train_all


def test_two_processes_equal_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    assert train_all(one) == 0 and launch(2, partial(train_all, two)) == 0
    for name in RUNS:
        alone, first, second = (
            safetensors.torch.load_file(folder / f"{name}-{rank}.safetensors")
            for folder, rank in ((one, 0), (two, 0), (two, 1))
        )
        for key, value in alone.items():
            torch.testing.assert_close(first[key], value, atol=1e-5, rtol=0)
            assert torch.equal(first[key], second[key]), "both take the same steps"
        told, expected = (History.read(folder / f"{name}-run") for folder in (two, one))
        for row, other in zip(told.rows, expected.rows, strict=True):
            assert row.losses == pytest.approx(other.losses, abs=1e-4) and row.accuracy == pytest.approx(other.accuracy)


def _fail() -> int:
    raise DataError("no such thing")


def test_the_command_line(
    made_up_backbone: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["--backbone", made_up_backbone, "--precision", "fp32", "--shots", "3"]
    shared += ["--epochs", "3", "--batch-size", "4"]
    found = []
    for devices in ("1", "2"):
        out = tmp_path / devices
        assert cli(["fit", str(pictures), *shared, "--optimizer", "sgd", "--out", str(out), "--devices", devices]) == 0
        found.append(safetensors.torch.load_file(out / "adapter.safetensors"))
        assert len((tmp_path / f"{devices}.run" / HISTORY_NAME).read_text().splitlines()) == 3
        assert json.loads((out / "adapter.json").read_text())["metrics"]["held_out"]["images"] == 6
    for key, value in found[0].items():
        derived = key.startswith("ensemble.")  # from logits, which CLIP's scale and fp16 move further
        torch.testing.assert_close(found[1][key], value, atol=1e-3 if derived else 1e-5, rtol=1e-3 if derived else 0)
    capsys.readouterr()
    with pytest.raises(DataError, match="no such thing"):
        launch(2, _fail)
    assert cli(["fit", str(pictures), "--devices", "0"]) == 2
    assert "--devices must be at least 1" in capsys.readouterr().err


@pytest.mark.slow
def test_stopping_both_saves_the_state(made_up_backbone: str, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "adapter"
    words = ["fit", str(pictures), "--backbone", made_up_backbone, "--epochs", "100000", "--out", str(out)]
    command = [sys.executable, "-m", "daptune", *words, "--devices", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    history = tmp_path / "adapter.run" / HISTORY_NAME
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (history.exists() and history.stat().st_size):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=120)
    last = told.splitlines()[-1]
    assert process.returncode == 130 and "its state is in" in last and last.endswith("--devices 2 --resume"), told
    assert "Traceback" not in told
    assert (history.parent / "checkpoint.safetensors").exists()


def test_shares_of_a_batch() -> None:
    ranks = Ranks()
    assert (ranks.rank, ranks.size, ranks.first) == (0, 1, True)
    images, labels = torch.arange(5.0)[:, None], torch.arange(5)
    assert ranks.share(images, labels) == (images, labels, 1.0)
    ranks.size = 3
    parts = []
    for ranks.rank in range(3):
        own, y, weight = ranks.share(images, labels)
        parts.append((own.flatten().tolist(), y.tolist(), weight))
    assert parts == [([0], [0], 0.2), ([1, 2], [1, 2], 0.4), ([3, 4], [3, 4], 0.4)]
    ranks.rank = 0  # one image for three: two of them get it without weight
    assert [ranks.share(images[:1], labels[:1])[2] for ranks.rank in range(3)] == [0, 0, 1]
    assert ranks.share(images, labels, whole=True)[2] == 1 / 3
