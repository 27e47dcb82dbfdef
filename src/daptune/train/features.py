"""Cached image features for training methods with a frozen image tower; a part of them for each of several fits."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from daptune.clip.transfer import Transfer
from daptune.data.loader import Batch, ImageLoader
from daptune.methods.base import Method

MOST_BYTES = 1 << 30  # limit for cached features; above it, images are encoded each time


class EncodedImages(ImageLoader):
    """A loader's batches with features (B, D), not normalised, instead of images; each view is encoded once.

    A view is encoded completely and in table order, so that a resumed run gets the same bits. The views of training
    are kept apart, (view, image); those of `augmented_view`, for prototypes, stay images.
    """

    def __init__(self, loader: ImageLoader, encode: Callable[[Tensor], Tensor], device: torch.device) -> None:
        vars(self).update(vars(loader))
        self._encode, self._device = encode, device
        self._features: dict[int | None, Batch] = {}  # by view; None: the evaluation transform

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        rows, views = (torch.from_numpy(found).split(self.batch_size) for found in self.draws(epoch, start_batch))
        for chosen, seen in zip(rows, views, strict=True):
            labels = torch.from_numpy(self.table.labels)[chosen]
            if self.augment:  # a sampler may mix views in an epoch
                pairs = zip(chosen.tolist(), seen.tolist(), strict=True)
                yield torch.stack([self.encoded(view)[0][row] for row, view in pairs]), labels
            else:
                yield self.encoded(None)[0][chosen], labels

    def evaluation(self) -> Iterator[Batch]:
        features, labels = self.encoded(None)
        yield from zip(features.split(self.batch_size), labels.split(self.batch_size), strict=True)

    def training_view(self, view: int) -> Iterator[Batch]:
        features, labels = self.encoded(view if self.augment else None)
        yield from zip(features.split(self.batch_size), labels.split(self.batch_size), strict=True)

    def encoded(self, view: int | None = None) -> Batch:
        """Features (n, D) of all images in table order and labels (n,); view None: the evaluation transform."""
        if view not in self._features:
            batches = super().evaluation() if view is None else super().training_view(view)
            transfer = Transfer(self._device)
            with torch.no_grad():
                parts = [(self._encode(*transfer(images)).cpu(), labels) for images, labels in batches]
            features, labels = (torch.cat(part) for part in zip(*parts, strict=True))
            self._features[view] = features, labels
        return self._features[view]


class EncodedPart(EncodedImages):
    """Some rows of `whole` as the batches of `loader`, which has these rows as its table.

    For fits on parts of the same images, such as the folds of a cross-validation: no image is encoded again. Views for
    prototypes are those of the epochs, and without augmentation the evaluation transform.
    """

    def __init__(self, whole: EncodedImages, rows: NDArray[np.int64], loader: ImageLoader) -> None:
        vars(self).update(vars(loader))
        self._whole, self._rows = whole, torch.from_numpy(rows)

    def augmented_view(self, view: int) -> Iterator[Batch]:
        features, labels = self.encoded(view % (self.views or 1) if self.augment else None)
        yield from zip(features.split(self.batch_size), labels.split(self.batch_size), strict=True)

    def encoded(self, view: int | None = None) -> Batch:
        features, labels = self._whole.encoded(view)
        return features[self._rows], labels[self._rows]


def encoded_once(method: Method, loader: ImageLoader, epochs: int | None = None) -> ImageLoader:
    """The loader, as `EncodedImages` if the method allows it, views repeat, and the features fit into memory.

    A run of `epochs` that draws fewer images than there are to encode stays as it is.
    """
    returning = loader.views is not None or not loader.augment
    if not method.trains_on_features or not returning or isinstance(loader, EncodedImages):
        return loader
    if loader.sampler is not None and epochs is not None:
        drawn = epochs * loader.batches_per_epoch * loader.batch_size
        if drawn < (loader.views or 1) * len(loader.table):
            return loader
    size = (loader.views or 1) * len(loader.table) * method.encoded_size * 4
    return EncodedImages(loader, method.encode, method.device) if size <= MOST_BYTES else loader
