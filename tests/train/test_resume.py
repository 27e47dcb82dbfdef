"""Killed, stopped or asked to stop at any moment, a resumed run ends in the same bits as one that was not."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from daptune.clip.backbone import Backbone, load_backbone
from daptune.data.loader import ImageLoader
from daptune.data.table import ImageTable
from daptune.errors import Interrupted, TrainingError
from daptune.methods import METHODS
from daptune.methods.base import Method
from daptune.train import TrainConfig, evaluate, fit_method
from daptune.train.checkpoint import read_checkpoint
from daptune.train.run import VALIDATIONS, validations_of

from .small import CONFIG, SmallLoader, SmallMethod, ends_like, same, train

ROOT = Path(__file__).parents[2]


def run_script(mode: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.small", mode, str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of fsyncs on a busy disk would be most of a test's time."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_killed_at_every_moment_it_resumes_to_the_same_bits(memory_path: Path) -> None:
    """Every write, rename, history line and optimizer step of a whole run is once the last thing that happens."""
    run_script("crash", memory_path)
    runs = sorted(memory_path.iterdir())
    assert len(runs) > 28
    assert [run.name for run in runs if not ends_like(run, memory_path / "whole")] == []


def test_killed_at_random_times_it_resumes_to_the_same_bits(memory_path: Path, reference: Path) -> None:
    run_script("kill", memory_path)
    assert all(ends_like(memory_path / f"run{i}", reference) for i in range(3))
    assert sum(int((memory_path / f"kills{i}").read_text()) for i in range(3)) >= 3


def test_sigterm_and_sigint_save_and_say_resume(memory_path: Path, reference: Path) -> None:
    run_script("signal", memory_path)
    assert all(ends_like(run, reference) for run in memory_path.iterdir())


@pytest.mark.parametrize("after", range(9))
def test_stopped_after_any_step(tmp_path: Path, reference: Path, after: int) -> None:
    """Asked after each step and within validation; the message names the step and what to type."""
    asked = iter(range(100))
    with pytest.raises(Interrupted, match=r"stopped after step \d+ of 9; .* continue with --resume\."):
        train(tmp_path, stop=lambda: next(asked) >= after, config=replace(CONFIG, checkpoint_seconds=60))
    method, _ = train(tmp_path, resume=True)
    assert ends_like(tmp_path, reference)
    expected = read_checkpoint(reference)
    assert expected is not None and same(method.state_dict(), expected.section("best"))


def test_stopping_without_a_folder_says_that_nothing_is_saved() -> None:
    with pytest.raises(Interrupted, match="nothing is saved"):
        train(stop=lambda: True)


def test_signal_handlers_are_put_back_and_other_threads_have_none(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    rows: list[int] = []
    thread = threading.Thread(target=lambda: rows.append(len(train()[1].rows)))
    thread.start()
    thread.join()
    assert rows == [3]


# --- the real methods on the real loader -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backbone(made_up_backbone: str) -> Backbone:
    return load_backbone(made_up_backbone, precision="fp32")


def pictures(backbone: Backbone, count: int, seed: int) -> ImageLoader:
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = tuple(
        (draw.normal(128, 40, (36, 40, 3)) + np.eye(3)[label] * 60).clip(0, 255).astype(np.uint8) for label in labels
    )
    table = ImageTable(images, labels, ("cat", "dog", "sea lion"))
    return ImageLoader(table, backbone.preprocess, 4, seed=seed, augment=True, shuffle=True, workers=2)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_trains_and_resumes_to_the_same_bits(tmp_path: Path, backbone: Backbone, name: str) -> None:
    """Stopped after the fourth step of six, in the middle of an epoch."""
    config = TrainConfig(epochs=2, select="best_val", checkpoint_seconds=3600)
    frozen = {n: t.clone() for n, t in backbone.clip.state_dict().items()}

    def run(folder: Path, *, resume: bool = False, stop_at: int | None = None) -> Method:
        method = METHODS[name](backbone, ["cat", "dog", "sea lion"])
        seen: list[int] = []
        fit_method(
            method, pictures(backbone, 13, 1), config, val=pictures(backbone, 6, 2), run_dir=folder, resume=resume,
            progress=lambda p: seen.append(p.step), stop=lambda: stop_at is not None and seen[-1:] == [stop_at],
        )  # fmt: skip
        return method

    whole = run(tmp_path / "whole")
    if whole.trainable:
        with pytest.raises(Interrupted):
            run(tmp_path / "parts", stop_at=4)
        parts = run(tmp_path / "parts", resume=True)
        assert ends_like(tmp_path / "parts", tmp_path / "whole")
        fresh = METHODS[name](backbone, ["cat", "dog", "sea lion"])
        assert not same(whole.state_dict(), fresh.state_dict())
    else:
        parts = run(tmp_path / "parts")
    assert same(whole.state_dict(), parts.state_dict())
    assert same(frozen, dict(backbone.clip.state_dict()))
    assert evaluate(whole, pictures(backbone, 13, 1))["probabilities"].shape == (13, 3)


def drawing(images: int = 22, **settings: Any) -> tuple[SmallLoader, TrainConfig]:
    config = replace(CONFIG, accumulate=1, **settings)
    loader = SmallLoader(images)
    loader.sampler = config.sampler(loader.table.labels, loader.seed)
    return loader, config


def test_draws_of_a_sampler_resume_to_the_same_bits(tmp_path: Path) -> None:
    settings = {"sampling": "balanced", "epoch_shots": 3}
    loader, config = drawing(**settings)
    whole, _ = train(tmp_path / "whole", loader=loader, config=config)
    asked = iter(range(100))
    with pytest.raises(Interrupted, match=r"after step [45] of 9"):  # within the second of three epochs
        train(tmp_path / "run", loader=drawing(**settings)[0], config=config, stop=lambda: next(asked) >= 7)
    method, _ = train(tmp_path / "run", loader=drawing(**settings)[0], config=config, resume=True)
    assert ends_like(tmp_path / "run", tmp_path / "whole") and same(method.state_dict(), whole.state_dict())


def test_other_draws_are_another_run(tmp_path: Path) -> None:
    plain, config = drawing()
    train(tmp_path, loader=plain, config=config)
    even, drawn = drawing(sampling="balanced")
    with pytest.raises(TrainingError, match=r"images.groups is None there and 3 now .*--shots 16"):
        train(tmp_path, loader=even, config=drawn, resume=True)
    weighted = SmallMethod()
    weighted.class_weight = torch.tensor([1.0, 2.0, 3.0])
    with pytest.raises(TrainingError, match="class_weight is None there"):
        train(tmp_path, method=weighted, loader=plain, config=config, resume=True)
    limited = replace(config, epoch_shots=50)  # no class has so many: the same draws
    train(tmp_path, loader=plain, config=limited, resume=True)


@pytest.mark.parametrize(("epochs", "val", "expected"), [(50, 9, 50), (50, 60, 15), (50, 4000, 5), (3, 9, 3)])
def test_many_validation_images_are_looked_at_less_often(epochs: int, val: int, expected: int) -> None:
    """By hand: 50 epochs of 18 images are 900, as many as 15 passes over 60."""
    loader, config = drawing(30, sampling="balanced", epoch_shots=6, epochs=epochs)
    assert min(epochs, validations_of(loader, SmallLoader(val), config)) == expected
    assert validations_of(loader, SmallLoader(val), replace(config, epoch_shots=None)) == VALIDATIONS
    assert validations_of(loader, None, config) == VALIDATIONS
