"""What the loop asks of a loader."""

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

Batch = tuple[Tensor, Tensor]  # images (B,3,R,R) float32, labels (B,) int64


class Batches(Protocol):
    """What the loop asks of a loader; `daptune.data.loader.ImageLoader` is one."""

    @property
    def batches_per_epoch(self) -> int: ...

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches of an epoch from `start_batch` on; nothing but the arguments and the loader's seed decides them."""

    def evaluation(self) -> Iterator[Batch]:
        """Every image once, in the table's order, without augmentation."""

    def augmented_view(self, view: int) -> Iterator[Batch]:
        """Every image once, in the table's order, with the augmentation number `view`."""
