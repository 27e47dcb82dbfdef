"""A predictor without a model, whose answers are functions of a path's name."""

import time
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np


class Fake:
    """Three classes; a path with "bad" in it cannot be read; `seconds` for each batch."""

    classes_ = np.array(["cat", "dog", "owl"])

    def __init__(self, batch: int = 3, seconds: float = 0.0) -> None:
        self.batch, self.seconds = batch, seconds
        self.seen: list[str] = []

    def stream(self, sources: Iterable[Any]) -> Iterator[tuple[Any, np.ndarray]]:
        numbered = enumerate(sources)
        while group := list(islice(numbered, self.batch)):
            time.sleep(self.seconds)
            self.seen += [str(source) for _, source in group]
            named = [(index, str(source)) for index, source in group]
            good = [(index, name) for index, name in named if "bad" not in name]
            bad = [SimpleNamespace(index=index, reason=f"{name}:\nno image") for index, name in named if "bad" in name]
            scores = np.array([[zlib.crc32(f"{name}{c}".encode()) % 997 for c in range(3)] for _, name in good])
            scores = scores.reshape(-1, 3) + 1.0
            batch = SimpleNamespace(indices=tuple(index for index, _ in good), failed=tuple(bad))
            yield batch, (scores / scores.sum(1, keepdims=True)).astype(np.float32)
