"""A predictor without a model, whose answers are functions of a path's name."""

import time
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from daptune.clip.preprocess import Preprocess
from daptune.data.check import Unreadable
from daptune.data.stream import Decoded, Item
from daptune.predict.predictor import Answers, Predictor


class Fake(Predictor):
    """Three classes; a path with "bad" in it cannot be read; `seconds` for each batch. No file is opened."""

    classes_ = np.array(["cat", "dog", "owl"])
    preprocess = Preprocess(size=1)
    scaled_decoding = False

    def __init__(self, batch: int = 3, seconds: float = 0.0) -> None:
        self.batch_size, self.seconds = batch, seconds
        self.seen: list[str] = []

    def probabilities(self, images: Any) -> Any:
        raise NotImplementedError("there are no pixels")

    def known(self, sources: Iterable[Any]) -> Any:
        """Like the name of a path "known 0.02", or 1; None without `truth`."""
        words = [str(source).partition("known ")[2] for source in sources]
        return np.array([float(word or 1) for word in words]) if self.truth else None

    def stream(self, sources: Iterable[Any]) -> Iterator[tuple[Decoded[Any], Any]]:
        numbered = enumerate(item if isinstance(item, Item) else Item("", item) for item in sources)
        while group := list(islice(numbered, self.batch_size)):
            time.sleep(self.seconds)
            self.seen += [str(item.source) for _, item in group]
            good = [(index, item) for index, item in group if "bad" not in str(item.source)]
            bad = [
                Unreadable(index, item.source, f"{item.source}:\nno image", item.name)
                for index, item in group
                if "bad" in str(item.source)
            ]
            scores = np.array([[zlib.crc32(f"{item.source}{c}".encode()) % 997 for c in range(3)] for _, item in good])
            scores = scores.reshape(-1, 3) + 1.0
            batch = Decoded(
                tuple(index for index, _ in good),
                tuple(item.source for _, item in good),
                np.empty((len(good), 3, 1, 1), np.float32),
                tuple(bad),
                tuple(item.name for _, item in good),
            )
            probabilities = (scores / scores.sum(1, keepdims=True)).astype(np.float32)
            yield batch, Answers(probabilities, self.known(batch.sources))
