"""Images encoded once: what a method with a frozen image tower trains on in place of pictures."""

from collections.abc import Callable, Iterator, Sized
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from daptune.clip.transfer import Transfer
from daptune.train.batches import Batch, Batches

if TYPE_CHECKING:
    from daptune.methods.base import Method

MOST_BYTES = 1 << 30  # of features; where they would take more, images are encoded anew each time


@runtime_checkable
class Views(Protocol):
    """A loader of which an image can be had view by view; `daptune.data.loader.ImageLoader` is one."""

    table: Sized
    batch_size: int
    augment: bool
    views: int | None

    @property
    def batches_per_epoch(self) -> int: ...

    def order(self, epoch: int, start_batch: int = 0) -> npt.NDArray[np.int64]: ...

    def view_of(self, epoch: int) -> int: ...

    def training_view(self, view: int) -> Iterator[Batch]: ...

    def evaluation(self) -> Iterator[Batch]: ...

    def augmented_view(self, view: int) -> Iterator[Batch]: ...


class EncodedImages:
    """A loader's batches with features (B, D), not normalised, in place of images: each view is encoded once.

    A view is encoded whole and in the table's order, so that a run that goes on in the middle gets the same bits.
    """

    def __init__(self, loader: Views, encode: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self.loader = loader
        self._encode, self._device = encode, device
        self._kept: dict[int | None, Batch] = {}  # by view; None: the evaluation transform

    @property
    def batches_per_epoch(self) -> int:
        return self.loader.batches_per_epoch

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """As `ImageLoader.epoch`."""
        features, labels = self._view(self.loader.view_of(epoch) if self.loader.augment else None)
        for rows in torch.from_numpy(self.loader.order(epoch, start_batch)).split(self.loader.batch_size):
            yield features[rows], labels[rows]

    def evaluation(self) -> Iterator[Batch]:
        """As `ImageLoader.evaluation`."""
        features, labels = self._view(None)
        yield from zip(features.split(self.loader.batch_size), labels.split(self.loader.batch_size), strict=True)

    def augmented_view(self, view: int) -> Iterator[Batch]:
        """As `ImageLoader.augmented_view`, not kept."""
        return self.loader.augmented_view(view)

    def _view(self, view: int | None) -> Batch:
        if view not in self._kept:
            batches = self.loader.evaluation() if view is None else self.loader.training_view(view)
            transfer = Transfer(self._device)
            with torch.no_grad():
                parts = [(self._encode(*transfer(images)).cpu(), labels) for images, labels in batches]
            features, labels = (torch.cat(part) for part in zip(*parts, strict=True))
            self._kept[view] = features, labels
        return self._kept[view]


def encoded_once(method: "Method", loader: Batches) -> Batches:
    """The loader, with each image encoded once a view where the method allows it, views return, and features fit."""
    if not (isinstance(loader, Views) and getattr(method, "trains_on_features", False)):
        return loader
    if loader.augment and loader.views is None:
        return loader
    if (loader.views or 1) * len(loader.table) * method.encoded_size * 4 > MOST_BYTES:
        return loader
    return EncodedImages(loader, method.encode, method.clip.device)
