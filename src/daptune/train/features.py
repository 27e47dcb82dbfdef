"""Images encoded once: what a method with a frozen image tower trains on in place of pictures."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from daptune.clip.transfer import Transfer
from daptune.data.loader import Batch, ImageLoader
from daptune.methods.base import Method

MOST_BYTES = 1 << 30  # of features; where they would take more, images are encoded anew each time


class EncodedImages(ImageLoader):
    """A loader's batches with features (B, D), not normalised, in place of images: each view is encoded once.

    A view is encoded whole and in the table's order, so that a run that goes on in the middle gets the same bits.
    Views for prototypes stay images.
    """

    def __init__(self, loader: ImageLoader, encode: Callable[[Tensor], Tensor], device: torch.device) -> None:
        vars(self).update(vars(loader))
        self._encode, self._device = encode, device
        self._features: dict[int | None, Batch] = {}  # by view; None: the evaluation transform

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """As `ImageLoader.epoch`."""
        features, labels = self._encoded(self.view_of(epoch) if self.augment else None)
        for rows in torch.from_numpy(self.order(epoch, start_batch)).split(self.batch_size):
            yield features[rows], labels[rows]

    def evaluation(self) -> Iterator[Batch]:
        """As `ImageLoader.evaluation`."""
        features, labels = self._encoded(None)
        yield from zip(features.split(self.batch_size), labels.split(self.batch_size), strict=True)

    def _encoded(self, view: int | None) -> Batch:
        if view not in self._features:
            batches = super().evaluation() if view is None else self.training_view(view)
            transfer = Transfer(self._device)
            with torch.no_grad():
                parts = [(self._encode(*transfer(images)).cpu(), labels) for images, labels in batches]
            features, labels = (torch.cat(part) for part in zip(*parts, strict=True))
            self._features[view] = features, labels
        return self._features[view]


def encoded_once(method: Method, loader: ImageLoader) -> ImageLoader:
    """The loader, with each image encoded once a view where the method allows it, views return, and features fit."""
    returning = loader.views is not None or not loader.augment
    if not method.trains_on_features or not returning or isinstance(loader, EncodedImages):
        return loader
    size = (loader.views or 1) * len(loader.table) * method.encoded_size * 4
    return EncodedImages(loader, method.encode, method.device) if size <= MOST_BYTES else loader
