"""A stream of images, decoded in parallel and handed on in batches. Nothing here needs torch."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from daptune.data.check import Unreadable
from daptune.data.images import decode
from daptune.data.parallel import ordered_map
from daptune.data.quiet import telling
from daptune.data.table import ImageSource
from daptune.errors import DataError

if TYPE_CHECKING:
    from daptune.data.device import Preprocess

PREFETCH = 2  # batches in the making while one is in use
SCALED_MARGIN = 2
A = TypeVar("A")


class Item(NamedTuple):
    """An image of a stream, and the name that it goes by: its batch has both."""

    name: str
    source: ImageSource


@dataclass(frozen=True)
class Decoded(Generic[A]):
    """Consecutive sources of a stream: those that decoded, in order, and those that did not.

    indices: positions in the stream, b of them.
    sources: the b sources.
    images: float32 (b, 3, R, R), an array or a tensor; b may be 0.
    failed: positions, sources, reasons and names of the rest.
    names: of the b images; "" for a source that came without.
    """

    indices: tuple[int, ...]
    sources: tuple[ImageSource, ...]
    images: A
    failed: tuple[Unreadable, ...]
    names: tuple[str, ...]


def decoded_batches(
    sources: Iterable[ImageSource | Item],
    preprocess: "Preprocess",
    batch_size: int = 32,
    workers: int | None = None,
    *,
    scaled: bool = False,
) -> Iterator[Decoded[NDArray[np.float32]]]:
    """Decode a stream of any length for prediction, in order and in constant memory.

    Each batch stands for `batch_size` consecutive sources (the last for the remaining ones); damaged images are
    reported in `failed` and stop nothing. `scaled` decodes large JPEGs at a fraction of their size, at least
    SCALED_MARGIN times what `preprocess` makes of them; docs/prediction.md has the differences.
    """
    size = preprocess.size
    shrink_to = SCALED_MARGIN * size if scaled else None

    def attempt(entry: tuple[int, ImageSource | Item]) -> tuple[int, Item, NDArray[np.float32]] | Unreadable:
        index, source = entry
        item = source if isinstance(source, Item) else Item("", source)
        try:
            return index, item, preprocess.array(decode(item.source, shrink_to=shrink_to))
        except DataError as error:
            return Unreadable(index, item.source, str(error), item.name)

    if batch_size < 1:
        raise DataError(f"expected a batch size of 1 or more, found {batch_size}.")
    ahead = PREFETCH * batch_size
    with telling(), closing(ordered_map(attempt, enumerate(sources), workers=workers, ahead=ahead)) as results:
        while group := list(islice(results, batch_size)):
            good = [result for result in group if not isinstance(result, Unreadable)]
            images = [image for _, _, image in good]
            yield Decoded(
                tuple(index for index, _, _ in good),
                tuple(item.source for _, item, _ in good),
                np.stack(images) if images else np.empty((0, 3, size, size), np.float32),
                tuple(result for result in group if isinstance(result, Unreadable)),
                tuple(item.name for _, item, _ in good),
            )
