"""Callbacks of a training run: any function of a `Progress` is one, called after each step (`fit_method`).

The progress bar, the search, the server and `TensorBoard` are such functions; `each` makes one of several.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from daptune.errors import TrainingError, extra
from daptune.files import told
from daptune.train.history import History, Progress

Callback = Callable[[Progress], None]


def each(*callbacks: Callback) -> Callback:
    """One callback that calls all, in order."""

    def call(now: Progress) -> None:
        for callback in callbacks:
            callback(now)

    return call


class TensorBoard:
    """Writes the curves of a run to a folder, which `tensorboard --logdir FOLDER` shows.

    with TensorBoard(Path("logs")) as curves:
        classifier.fit(images, labels, progress=curves)
        curves.finish(classifier.history_)

    After each step: loss terms, learning rate, and the accuracy on the epoch's images so far. `finish` adds the means
    and validations of the epochs. Raises MissingExtraError without the package tensorboard.
    """

    def __init__(self, folder: Path) -> None:
        with extra("tensorboard", "curves need {}"):
            import tensorboard  # noqa: F401
            from torch.utils.tensorboard import SummaryWriter
        with told(lambda why: TrainingError(f"{folder} cannot be written: {why}; name another folder")):
            self._writer: Any = SummaryWriter(str(folder))

    def __call__(self, now: Progress) -> None:
        self._add("step", now.losses, now.step)
        self._add("step", {"lr": now.lr, "accuracy": now.accuracy}, now.step)

    def finish(self, history: History) -> None:
        """The epochs of the run, each at its last step; empty for methods without gradient steps."""
        for row in history.rows:
            self._add("epoch", row.losses, row.step)
            self._add("epoch", {"lr": row.lr, "accuracy": row.accuracy, "seconds": row.seconds}, row.step)
            found = {"accuracy": row.val_accuracy, "map": row.val_map, "macro_f1": row.val_macro_f1, "nll": row.val_nll}
            self._add("validation", found, row.step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def _add(self, group: str, values: Mapping[str, float | None], step: int) -> None:
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(f"{group}/{name}", value, step)
