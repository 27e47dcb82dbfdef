"""Progress of a run (`Progress`) and its result (`History`, one JSON line per epoch)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from daptune.errors import TrainingError, foreign
from daptune.files import told
from daptune.foreign import json_lines, read_bytes

HISTORY_NAME = "history.jsonl"
LARGEST = 64_000_000
"""Bytes of a history; an epoch takes 300."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run, for display. Epochs and steps count from 1; losses are of the last batch.

    Epoch 0 is that of the text prompt alone (text_first.py), with steps of its own.
    """

    epoch: int
    epochs: int
    step: int  # over the whole run
    steps: int
    losses: Mapping[str, float]
    accuracy: float | None  # of this epoch's training batches so far; None if the method does not measure it
    val_accuracy: float | None  # of the last validated epoch; mAP, of images with any number of labels
    lr: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One line of history.jsonl. Losses and accuracy are means over the epoch's training images."""

    epoch: int  # from 1
    step: int  # steps done since the start of the run
    lr: float  # of the epoch's last step
    losses: dict[str, float]
    accuracy: float | None
    val_accuracy: float | None
    val_macro_f1: float | None
    val_nll: float | None
    seconds: float  # wall clock, validation included
    val_map: float | None = None  # in place of val_accuracy, of images with any number of labels

    @property
    def val_headline(self) -> float | None:
        """What the validation images say of the epoch: accuracy, or mAP."""
        return self.val_accuracy if self.val_map is None else self.val_map


@dataclass(frozen=True)
class History:
    """The result of a run. Empty for methods that are not trained by gradient steps."""

    rows: tuple[EpochRow, ...] = ()
    best_epoch: int | None = None  # with the best validation, from 1; select="best_val" restores its parameters
    best: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    """Learned tensors of that epoch, for `take_best`; empty without validation images."""

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """Read run_dir/history.jsonl; `best_epoch` is None. Raises `TrainingError` if it cannot be read."""
        path = run_dir / HISTORY_NAME
        advice = "name the folder of a run."
        unread = foreign(lambda why: TrainingError(f"{path} is not a history of daptune ({why}); {advice}"))
        opened = told(lambda why: TrainingError(f"{path} cannot be read ({why}); {advice}"))
        with unread, opened:
            content = read_bytes(path, LARGEST)
            return cls(tuple(_row(row) for _, row in json_lines(content)))


def _row(content: Any) -> EpochRow:
    """The row in a line. ValueError or TypeError for something else."""
    if isinstance(content, ValueError):
        raise content
    row = EpochRow(**content)
    numbers = (row.epoch, row.step, row.lr, row.seconds, *row.losses.values())
    measured = (row.accuracy, row.val_accuracy, row.val_macro_f1, row.val_nll, row.val_map)
    if not all(isinstance(value, int | float) for value in (*numbers, *filter(None, measured))):
        raise ValueError("a figure is no number")
    return row
