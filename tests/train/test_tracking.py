"""Callbacks: called in order, and curves as the history has them."""

import sys
from pathlib import Path

import pytest

from daptune.errors import MissingExtraError, TrainingError
from daptune.train import EpochRow, History, Progress, TensorBoard
from daptune.train.tracking import each


def now(step: int, **more: float | None) -> Progress:
    values = {"accuracy": None, "val_accuracy": None, "lr": 0.5 / step, "seconds_left": 0.0} | more
    return Progress(epoch=1, epochs=1, step=step, steps=2, losses={"total": 2.0 / step}, **values)


def test_several_callbacks_are_called_in_order() -> None:
    seen: list[tuple[str, int]] = []
    call = each(lambda p: seen.append(("a", p.step)), lambda p: seen.append(("b", p.step)))
    call(now(1))
    call(now(2))
    assert seen == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="curves need the extra `tensorboard`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = (
        EpochRow(1, 3, 0.5, {"total": 4.0}, 0.25, None, None, None, 1.5),
        EpochRow(2, 6, 0.25, {"total": 2.0}, 0.5, 0.75, 0.625, 1.25, 1.0),
    )
    with TensorBoard(tmp_path / "logs") as curves:
        curves(now(1))
        curves(now(2, accuracy=0.5))
        curves.finish(History(rows))
    found = EventAccumulator(str(tmp_path / "logs"))
    found.Reload()
    points = {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    assert points == {
        "step/total": [(1, 2.0), (2, 1.0)],
        "step/lr": [(1, 0.5), (2, 0.25)],
        "step/accuracy": [(2, 0.5)],
        "epoch/total": [(3, 4.0), (6, 2.0)],
        "epoch/lr": [(3, 0.5), (6, 0.25)],
        "epoch/accuracy": [(3, 0.25), (6, 0.5)],
        "epoch/seconds": [(3, 1.5), (6, 1.0)],
        "validation/accuracy": [(6, 0.75)],
        "validation/macro_f1": [(6, 0.625)],
        "validation/nll": [(6, 1.25)],
    }


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="curves need the extra `tensorboard`")
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"file cannot be written: .*; name another folder"):
        TensorBoard(tmp_path / "file")


def test_without_tensorboard_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"curves need tensorboard: pip install 'daptune\[tensorboard\]'"):
        TensorBoard(tmp_path)
