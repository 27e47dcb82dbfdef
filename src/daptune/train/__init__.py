"""Training. Reading order: loop.py, the training loop; run.py, its state; then schedule.py and checkpoint.py."""

from daptune.data.loader import ImageLoader as Batches
from daptune.evaluate import evaluate
from daptune.train.history import EpochRow, History, Progress
from daptune.train.loop import fit_method, take_best
from daptune.train.schedule import TrainConfig
from daptune.train.tracking import Callback, TensorBoard

__all__ = [
    "Batches",
    "Callback",
    "EpochRow",
    "History",
    "Progress",
    "TensorBoard",
    "TrainConfig",
    "evaluate",
    "fit_method",
    "take_best",
]
