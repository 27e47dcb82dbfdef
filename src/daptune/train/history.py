"""Progress of a run (`Progress`) and its result (`History`, one JSON line per epoch)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from torch import Tensor

from daptune.errors import TrainingError
from daptune.files import json_lines

HISTORY_NAME = "history.jsonl"


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run, for display. Epochs and steps count from 1; losses are of the last batch."""

    epoch: int
    epochs: int
    step: int  # over the whole run
    steps: int
    losses: Mapping[str, float]
    accuracy: float | None  # of this epoch's training batches so far; None if the method does not measure it
    val_accuracy: float | None  # of the last validated epoch
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
        try:
            return cls(tuple(EpochRow(**row) for _, row in json_lines(path.read_text("utf-8"))))
        except OSError as error:
            raise TrainingError(f"{path} cannot be read ({error.strerror}); name the folder of a run.") from error
        except (ValueError, TypeError) as error:
            raise TrainingError(f"{path} is not a history of daptune ({error}); name the folder of a run.") from error
