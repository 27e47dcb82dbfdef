"""Training. Reading order: loop.py, the training loop; run.py, its state; then schedule.py and checkpoint.py."""

from daptune.data.loader import ImageLoader as Batches
from daptune.evaluate import evaluate
from daptune.train.history import EpochRow, History, Progress
from daptune.train.loop import fit_method, take_best
from daptune.train.schedule import TrainConfig

__all__ = [
    "Batches",
    "EpochRow",
    "History",
    "Progress",
    "TrainConfig",
    "evaluate",
    "fit_method",
    "take_best",
]
