"""Batches of normalised images, decoded in parallel and cached; bit-identical for any number of workers."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import KW_ONLY, InitVar, dataclass, field
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
from daptune.data.parallel import ordered_map
from daptune.data.sampling import Sampler
from daptune.data.stream import PREFETCH, Decoded, decoded_batches
from daptune.data.table import ImageSource, ImageTable
from daptune.errors import DataError

EVALUATED_BYTES = 1 << 26
"""Memory up to which a loader keeps the images of its table after the evaluation transform, which are asked for more
than once: for prototypes and the ensemble, and validation images after each epoch."""
Batch = tuple[Tensor, Tensor]
"""Images float32 (B, 3, R, R), labels int64 (B,)."""


@dataclass(eq=False, repr=False)
class ImageLoader:
    """Batches of one table for training, evaluation and prototypes.

    seed: of the order and the augmentation.
    augment: random crop and flip in `epoch`, by `augmentation`; else the evaluation transform.
    augment_on: device that resizes, flips and normalises augmented images, which are then yielded there; None:
        the workers do, with Pillow (see daptune.data.device for the difference).
    views: number of augmented views of each image, reused epoch by epoch; None: a new one in every epoch.
    shuffle: a new order each epoch.
    sampler: the images of each epoch and their order; None: all, by `shuffle`.
    drop_last: drop the incomplete last batch of an epoch; "auto" does so if an epoch fills at least one batch
        (dassl/data/data_manager.py).
    workers: decoding threads; None: one per CPU, 0: none.
    cache_bytes, cache_dir: arguments of `daptune.data.cache.Decoder`.
    decoder: replaces these two; it may be shared with other loaders.

    The batches depend only on the arguments above `workers`. Images with too many pixels and damaged files raise
    DataError when they are read; `check_readable` finds them before.
    """

    table: ImageTable
    preprocess: Preprocess
    batch_size: int = 32
    _: KW_ONLY
    seed: int = 0
    augment: bool = False
    shuffle: bool = False
    drop_last: bool | Literal["auto"] = "auto"
    augmentation: Augmentation = field(default_factory=Augmentation)
    augment_on: torch.device | str | None = None
    views: int | None = None
    sampler: Sampler | None = None
    workers: int | None = None
    cache_bytes: InitVar[int] = MEMORY_BYTES
    cache_dir: InitVar[Path | None] = None
    decoder: InitVar[Decoder | None] = None

    def __post_init__(self, cache_bytes: int, cache_dir: Path | None, decoder: Decoder | None) -> None:
        if self.batch_size < 1:
            raise DataError(f"expected a batch size of 1 or more, found {self.batch_size}.")
        if self.workers is not None and self.workers < 0:
            raise DataError(f"expected 0 or more workers, found {self.workers}.")
        if len(self.table) == 0:
            raise DataError("expected images to load, found an empty table.")
        if self.drop_last == "auto":
            self.drop_last = self.images_per_epoch >= self.batch_size
        self._decode = Decoder(cache_bytes, cache_dir) if decoder is None else decoder
        self._evaluated: dict[int, Tensor] = {}
        if self.batches_per_epoch == 0:
            raise DataError(f"{self.images_per_epoch} images fill no batch of {self.batch_size}; lower the batch size.")

    @property
    def images_per_epoch(self) -> int:
        """Images that an epoch draws, including those of an incomplete batch that it drops."""
        return len(self.table) if self.sampler is None else len(self.sampler)

    @property
    def batches_per_epoch(self) -> int:
        whole, ragged = divmod(self.images_per_epoch, self.batch_size)
        return whole + (ragged > 0 and not self.drop_last)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Images float32 (B, 3, R, R) and labels int64 (B,) of one epoch, from batch `start_batch`.

        A pure function of (seed, epoch, batch), so that a resumed run gets the same batches.
        """
        rows, views = self.draws(epoch, start_batch)
        return self._batches(rows, EPOCH if self.augment else None, views)

    def draws(self, epoch: int, start_batch: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The rows of an epoch in order, from batch `start_batch`, and the index of the augmented view of each."""
        if self.sampler is not None:
            rows, views = self.sampler.epoch(epoch)
        else:
            size = len(self.table)
            rows = epoch_order(size, self.seed, epoch) if self.shuffle else np.arange(size)
            views = np.full(size, epoch)
        kept = slice(start_batch * self.batch_size, self.batches_per_epoch * self.batch_size)
        return rows[kept], views[kept] if self.views is None else views[kept] % self.views

    def training_view(self, view: int) -> Iterator[Batch]:
        """All images in table order, augmented as in epochs where this view is drawn."""
        rows = np.arange(len(self.table))
        return self._batches(rows, EPOCH if self.augment else None, np.full(len(rows), view))

    def evaluation(self) -> Iterator[Batch]:
        """All images in table order with the evaluation transform; shapes as in `epoch`."""
        rows = np.arange(len(self.table))
        return self._batches(rows, None, rows)

    def augmented_view(self, view: int) -> Iterator[Batch]:
        """All images in table order, augmented: a pure function of (seed, view, row), separate from epochs."""
        rows = np.arange(len(self.table))
        return self._batches(rows, VIEW, np.full(len(rows), view))

    def _made(self, purpose: int | None, place: tuple[int, int]) -> Tensor | Cut:
        """An image (row, view), augmented for a purpose, or None: with the evaluation transform."""
        row, view = place
        if purpose is None and row in self._evaluated:
            return self._evaluated[row]
        image = self._decode(self.table.images[row])
        if purpose is None:
            made = self.preprocess(image)
            if made.nbytes * len(self.table) <= EVALUATED_BYTES:
                self._evaluated[row] = made
            return made
        rng = generator(self.seed, purpose, view, row)
        if self.augment_on is not None:
            return Cut.draw(image, rng, self.augmentation, torch.device(self.augment_on))
        return self.preprocess.normalize(augment(image, self.preprocess.size, rng, self.augmentation))

    def _batches(
        self, rows: npt.NDArray[np.int64], purpose: int | None, views: npt.NDArray[np.int64]
    ) -> Iterator[Batch]:
        make, ahead = partial(self._made, purpose), PREFETCH * self.batch_size
        places = list(zip(rows.tolist(), views.tolist(), strict=True))
        made = ordered_map(make, places, workers=self.workers, ahead=ahead, initializer=_one_torch_thread)
        with closing(made) as ready:
            for start in range(0, len(rows), self.batch_size):
                chosen = rows[start : start + self.batch_size]
                batch = (v.view(self.preprocess) if isinstance(v, Cut) else v for v in islice(ready, len(chosen)))
                yield torch.stack(list(batch)), torch.from_numpy(self.table.labels[chosen])


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
    torch.set_num_threads(1)  # of the calling thread only: workers with several torch threads would compete
