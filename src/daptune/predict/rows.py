"""Named images -> a row an image, in their order: file, label, probability, maybe top; or file and error."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daptune.data.stream import Item
from daptune.predict.inputs import spelt
from daptune.predict.predictor import Predictor

Row = dict[str, Any]


def predict_rows(predictor: Predictor, images: Iterable[Item], top_k: int) -> Iterator[list[Row]]:
    """The rows of each batch, in the order of the images; of these, a few batches are held."""
    classes = predictor.classes_.tolist()
    for batch, probabilities in predictor.stream(images):
        rows: dict[int, Row] = {
            bad.index: {"file": bad.name, "error": " ".join(spelt(bad.reason).split())} for bad in batch.failed
        }
        for index, name, values in zip(batch.indices, batch.names, probabilities, strict=True):
            top = [{"label": label, "probability": share} for label, share in likeliest(classes, values, top_k)]
            rows[index] = {"file": name, **top[0], **({"top": top} if top_k > 1 else {})}
        yield [rows[index] for index in sorted(rows)]


def likeliest(
    classes: Sequence[str | int], probabilities: NDArray[np.float32], count: int
) -> list[tuple[str | int, float]]:
    """The `count` likeliest classes of an image with their probabilities (C,), rounded to 6 digits, likeliest first."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [(classes[place], round(float(probabilities[place]), 6)) for place in order]
