"""Training. Reading order: loop.py, the whole of it; run.py, its bookkeeping; then schedule.py and checkpoint.py."""

from daptune.train.history import EpochRow, History, Progress
from daptune.train.loop import Batches, Evaluation, evaluate, fit_method
from daptune.train.schedule import TrainConfig

__all__ = [
    "Batches",
    "EpochRow",
    "Evaluation",
    "History",
    "Progress",
    "TrainConfig",
    "evaluate",
    "fit_method",
]
