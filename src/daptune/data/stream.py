"""A stream of images, decoded in parallel and handed on in batches. Nothing here needs torch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from daptune.data.check import Unreadable
from daptune.data.images import MAX_PIXELS, decode
from daptune.data.parallel import ordered_map
from daptune.data.table import ImageSource
from daptune.errors import DataError

PREFETCH = 2  # batches in the making while one is in use
SCALED_MARGIN = 2
V = TypeVar("V")
A = TypeVar("A")


@dataclass(frozen=True)
class Decoded(Generic[A]):
    """Consecutive sources of a stream: those that decoded, in order, and those that did not.

    indices: positions in the stream, b of them.
    sources: the b sources.
    images: float32 (b, 3, R, R), an array or a tensor; b may be 0.
    failed: positions, sources and reasons of the rest.
    """

    indices: tuple[int, ...]
    sources: tuple[ImageSource, ...]
    images: A
    failed: tuple[Unreadable, ...]


def decoded_batches(
    sources: Iterable[ImageSource],
    transform: Callable[[Image.Image], V],
    stack: Callable[[Sequence[V]], A],
    batch_size: int = 32,
    workers: int | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    shrink_to: int | None = None,
    initializer: Callable[[], None] | None = None,
) -> Iterator[Decoded[A]]:
    """Decode a stream of any length for prediction, in order and in constant memory.

    `transform` makes of an image what `stack` joins into a batch (of none, too). Each batch stands for `batch_size`
    consecutive sources (the last for the remaining ones); damaged images are reported in `failed` and stop nothing.
    `shrink_to` is that of `decode`: SCALED_MARGIN times what the transform makes of a picture; docs/prediction.md has
    the differences.
    """

    def attempt(item: tuple[int, ImageSource]) -> tuple[int, ImageSource, V] | Unreadable:
        index, source = item
        try:
            return index, source, transform(decode(source, max_pixels=max_pixels, shrink_to=shrink_to))
        except DataError as error:
            return Unreadable(index, source, str(error))

    if batch_size < 1:
        raise DataError(f"expected a batch size of 1 or more, found {batch_size}.")
    ahead = PREFETCH * batch_size
    with closing(
        ordered_map(attempt, enumerate(sources), workers=workers, ahead=ahead, initializer=initializer)
    ) as results:
        while group := list(islice(results, batch_size)):
            good = [result for result in group if not isinstance(result, Unreadable)]
            yield Decoded(
                tuple(index for index, _, _ in good),
                tuple(source for _, source, _ in good),
                stack([image for _, _, image in good]),
                tuple(result for result in group if isinstance(result, Unreadable)),
            )


def probabilities_of(parts: Iterable[tuple[Decoded[Any], NDArray[np.float32]]]) -> NDArray[np.float32]:
    """Probabilities (n, C) of a whole stream of batches (b, C); DataError at the first image that cannot be read."""
    found = []
    for batch, probabilities in parts:
        if batch.failed:
            raise DataError(f"{batch.failed[0].reason} Leave it out; `daptune predict` goes on past such files.")
        found.append(probabilities)
    if not found:
        raise DataError("expected images to predict, found none.")
    return np.concatenate(found)
