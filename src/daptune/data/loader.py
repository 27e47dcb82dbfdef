"""Batches of normalised images: decoded in parallel, cached, and the same bits however they are computed."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from daptune.data.augment import EPOCH, VIEW, Augmentation, augment, epoch_order, generator
from daptune.data.cache import MEMORY_BYTES, Decoder
from daptune.data.device import Cut, Preprocess
from daptune.data.parallel import default_workers, ordered_map
from daptune.data.stream import PREFETCH, Decoded, decoded_batches
from daptune.data.table import ImageSource, ImageTable
from daptune.errors import DataError

Batch = tuple[Tensor, Tensor]
"""Images float32 (B, 3, R, R), labels int64 (B,)."""


class ImageLoader:
    """Feeds one table to training, evaluation and prototypes.

    table: images and labels.
    preprocess: the backbone's.
    batch_size: images a batch.
    seed: of the order and the augmentation.
    augment: random crop and flip in `epoch`, by `augmentation`; else the evaluation transform.
    augment_on: device that resizes, flips and normalises augmented images, which are then yielded there; None:
        the workers do, with Pillow (daptune.data.device has the difference).
    views: so many augmented views of each image, in turn, epoch by epoch; None: a new one in every epoch.
    shuffle: a new order each epoch.
    drop_last: leave out the ragged last batch of an epoch; "auto" does so when the table fills at least one
        batch (dassl/data/data_manager.py).
    workers: threads that decode; None one a processor, 0 none.
    cache_bytes, cache_dir: those of `daptune.data.cache.Decoder`.
    decoder: in their place, one that has decoded some of the images before, or serves other loaders too.

    What it yields depends on the arguments above `workers` alone. Images of too many pixels and damaged
    files raise DataError at their turn; `check_readable` finds them before.
    """

    def __init__(
        self,
        table: ImageTable,
        preprocess: Preprocess,
        batch_size: int = 32,
        *,
        seed: int = 0,
        augment: bool = False,
        shuffle: bool = False,
        drop_last: bool | Literal["auto"] = "auto",
        augmentation: Augmentation | None = None,
        augment_on: torch.device | str | None = None,
        views: int | None = None,
        workers: int | None = None,
        cache_bytes: int = MEMORY_BYTES,
        cache_dir: Path | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        if batch_size < 1:
            raise DataError(f"expected a batch size of 1 or more, found {batch_size}.")
        if workers is not None and workers < 0:
            raise DataError(f"expected 0 or more workers, found {workers}.")
        if len(table) == 0:
            raise DataError("expected images to load, found an empty table.")
        self.table = table
        self.preprocess = preprocess
        self.batch_size = batch_size
        self.seed = seed
        self.augment = augment
        self.shuffle = shuffle
        self.drop_last = len(table) >= batch_size if drop_last == "auto" else drop_last
        self.augmentation = augmentation or Augmentation()
        self.augment_on = None if augment_on is None else torch.device(augment_on)
        self.views = views
        self.workers = default_workers() if workers is None else workers
        self._decode = Decoder(cache_bytes, cache_dir) if decoder is None else decoder
        if self.batches_per_epoch == 0:
            raise DataError(f"{len(table)} images fill no batch of {batch_size}; lower the batch size.")

    @property
    def batches_per_epoch(self) -> int:
        whole, ragged = divmod(len(self.table), self.batch_size)
        return whole + (ragged > 0 and not self.drop_last)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """images float32 (B, 3, R, R) and labels int64 (B,) of one epoch, from batch `start_batch` on.

        A pure function of (seed, epoch, batch): a run that goes on in the middle sees what it would have
        seen.
        """
        view = (EPOCH, self.view_of(epoch)) if self.augment else None
        return self._batches(view, self.order(epoch, start_batch))

    def order(self, epoch: int, start_batch: int = 0) -> npt.NDArray[np.int64]:
        """The rows of an epoch as `epoch` draws them, from batch `start_batch` on."""
        size = len(self.table)
        order = epoch_order(size, self.seed, epoch) if self.shuffle else np.arange(size)
        return order[start_batch * self.batch_size : self.batches_per_epoch * self.batch_size]

    def view_of(self, epoch: int) -> int:
        """The number of the augmented views that an epoch shows."""
        return epoch if self.views is None else epoch % self.views

    def training_view(self, view: int) -> Iterator[Batch]:
        """Every image in the table's order, as the epochs of that view show it."""
        return self._batches((EPOCH, view) if self.augment else None)

    def evaluation(self) -> Iterator[Batch]:
        """Every image in the table's order through the evaluation transform; shapes as in `epoch`."""
        return self._batches(None)

    def augmented_view(self, view: int) -> Iterator[Batch]:
        """Every image in the table's order, augmented: a pure function of (seed, view, row), not epoch's."""
        return self._batches((VIEW, view))

    def _made(self, view: tuple[int, int] | None, row: int) -> Tensor | Cut:
        """An image as a view shows it: (purpose, number) of the augmented ones, None for the evaluation transform."""
        image = self._decode(self.table.images[row])
        if view is None:
            return self.preprocess(image)
        rng = generator(self.seed, *view, row)
        if self.augment_on is not None:
            return Cut.draw(image, rng, self.augmentation, self.augment_on)
        return self.preprocess.normalize(augment(image, self.preprocess.size, rng, self.augmentation))

    def _batches(self, view: tuple[int, int] | None, rows: npt.NDArray[np.int64] | None = None) -> Iterator[Batch]:
        """The images of `rows`, or all in the table's order."""
        rows = np.arange(len(self.table)) if rows is None else rows
        make, ahead = partial(self._made, view), PREFETCH * self.batch_size
        made = ordered_map(make, rows.tolist(), workers=self.workers, ahead=ahead, initializer=_one_torch_thread)
        with closing(made) as views:
            for start in range(0, len(rows), self.batch_size):
                chosen = rows[start : start + self.batch_size]
                ready = (v.view(self.preprocess) if isinstance(v, Cut) else v for v in islice(views, len(chosen)))
                yield torch.stack(list(ready)), torch.from_numpy(self.table.labels[chosen])


DecodedBatch = Decoded[Tensor]
"""A batch of a stream, images as a tensor."""


def iter_batches(
    sources: Iterable[ImageSource],
    preprocess: Preprocess,
    batch_size: int = 32,
    workers: int | None = None,
    *,
    scaled: bool = False,
) -> Iterator[DecodedBatch]:
    """`daptune.data.stream.decoded_batches` as tensors float32 (b, 3, R, R)."""
    for batch in decoded_batches(sources, preprocess, batch_size, workers, scaled=scaled):
        yield Decoded(batch.indices, batch.sources, torch.from_numpy(batch.images), batch.failed, batch.names)


def _one_torch_thread() -> None:
    """A worker computes one image; with torch's own threads in each, they would fight for processors."""
    torch.set_num_threads(1)  # of the calling thread only
