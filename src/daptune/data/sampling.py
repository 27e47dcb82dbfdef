"""Which images each epoch draws: all of them, a share, as many of every class, or some of all views of all images."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from daptune.data.augment import DRAW, epoch_order, generator
from daptune.errors import DataError

SAMPLINGS = ("shuffled", "balanced", "views")

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws from groups of images, a fixed number of each group in every epoch.

    groups: rows of a table. quotas: draws of each group in an epoch. seed: of the draws and of their order.

    A group is drawn pass by pass: no image is drawn again before all others of its group were, whether a pass takes
    several epochs or an epoch several passes. If every quota is the size of its group, an epoch is a pass over the
    images in the order of `epoch_order`.
    """

    groups: tuple[Indices, ...]
    quotas: tuple[int, ...]
    seed: int

    @classmethod
    def of(cls, labels: Indices, sampling: str, shots: int | None, seed: int) -> Self:
        """A sampler of images with labels (n,) or (n, C); `shots` limits the images of a class in an epoch.

        balanced: every class has as many draws as the largest, at most `shots`; small classes repeat their images.
        shuffled: all images are one group, and an epoch is as long as one with at most `shots` images of each class.
        """
        counts = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels)
        most = int(counts.max()) if shots is None else min(int(counts.max()), shots)
        if sampling == "shuffled":
            drawn = min(int(np.minimum(counts, most).sum()), len(labels))
            return cls((np.arange(len(labels)),), (drawn,), seed)
        if labels.ndim == 2:
            raise DataError(f"sampling={sampling!r} draws by class, and images have several labels; use 'shuffled'.")
        by_class = np.argsort(labels, kind="stable")
        groups = tuple(np.split(by_class, np.cumsum(counts[counts > 0])[:-1]))
        return cls(groups, (most,) * len(groups), seed)

    @property
    def whole(self) -> bool:
        """Whether an epoch is a pass over all images."""
        return all(quota == len(group) for quota, group in zip(self.quotas, self.groups, strict=True))

    def __len__(self) -> int:
        """Draws in an epoch, N."""
        return sum(self.quotas)

    def epoch(self, epoch: int) -> tuple[Indices, Indices]:
        """The rows of an epoch in order, and how often each was drawn before: (N,) both. A pure function."""
        drawn = [self._draw(place, epoch) for place in range(len(self.groups))]
        rows, passes = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        # sorted first: then the order is that of `epoch_order` where all images are drawn once
        order = np.lexsort((passes, rows))[epoch_order(len(rows), self.seed, epoch)]
        return rows[order], passes[order]

    def _draw(self, place: int, epoch: int) -> tuple[Indices, Indices]:
        members, quota = self.groups[place], self.quotas[place]
        places = np.arange(epoch * quota, (epoch + 1) * quota)  # in the endless sequence of passes
        passes, within = np.divmod(places, len(members))
        rows = np.empty(quota, np.int64)
        for number in np.unique(passes):
            own = passes == number
            shuffled = generator(self.seed, DRAW, int(number), place).permutation(len(members))
            rows[own] = members[shuffled[within[own]]]
        return rows, passes


@dataclass(frozen=True, eq=False)
class ViewSampler(Sampler):
    """Draws from all (view, image) pairs, anew in every epoch: CLAP's official loop (jusiro/CLAP trainers/adapters.py).

    Each group is a view of all images; the quotas only say how many pairs an epoch draws in all.
    """

    @classmethod
    def over(cls, images: int, views: int, batch_size: int, seed: int) -> Self:
        """As many whole batches as a pass over the images has, at least one, and no more pairs than there are."""
        draws = min(max(1, images // batch_size) * batch_size, images * views)
        shares = np.diff(np.linspace(0, draws, views + 1).astype(np.int64))
        return cls((np.arange(images),) * views, tuple(shares.tolist()), seed)

    @property
    def whole(self) -> bool:
        return False

    def epoch(self, epoch: int) -> tuple[Indices, Indices]:
        """The rows of an epoch in order, and the view of each: (N,) both. No pair twice."""
        images = len(self.groups[0])
        pairs = generator(self.seed, DRAW, epoch).permutation(images * len(self.groups))[: len(self)]
        return pairs % images, pairs // images
