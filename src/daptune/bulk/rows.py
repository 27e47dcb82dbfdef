"""A stream of images -> a row an image, in its order: file, label, probability, maybe top; or file and error."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daptune.bulk.inputs import Item, spelt

if TYPE_CHECKING:
    from daptune.data.stream import Decoded
    from daptune.data.table import ImageSource

Row = dict[str, Any]


class Predictor(Protocol):
    """What can predict; `daptune.FewShotClassifier` is one."""

    @property
    def classes_(self) -> NDArray[Any]:
        """Names or integers of the C classes."""

    def stream(self, sources: "Iterable[ImageSource]", /) -> "Iterator[tuple[Decoded[Any], NDArray[np.float32]]]":
        """Batches in the order of the sources, each with probabilities (b, C) of those that could be read."""


def predict_rows(predictor: Predictor, images: Iterable[Item], top_k: int) -> Iterator[list[Row]]:
    """The rows of each batch, in the order of the images; of these, a few batches are held."""
    names: deque[str] = deque()  # of the images that were asked for and have no row yet

    def sources() -> "Iterator[ImageSource]":
        for name, source in images:
            names.append(name)
            yield source

    classes = predictor.classes_.tolist()
    for batch, probabilities in predictor.stream(sources()):
        rows: dict[int, Row] = {bad.index: {"error": " ".join(spelt(bad.reason).split())} for bad in batch.failed}
        ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        for index, order, values in zip(batch.indices, ranked, probabilities, strict=True):
            top = [{"label": classes[place], "probability": round(float(values[place]), 6)} for place in order]
            rows[index] = top[0] | ({"top": top} if top_k > 1 else {})
        yield [{"file": names.popleft(), **rows[index]} for index in sorted(rows)]
