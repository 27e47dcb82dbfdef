"""An exported file to those that run it: the names in its graph, and `Runtime`, an opened file."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY = "daptune"
"""Of its metadata: one JSON object (`daptune.predict.onnx.Metadata`)."""
INPUT, LOGITS, PROBABILITIES, SIMILARITY = "images", "logits", "probabilities", "similarity"
Source = str | bytes  # path or content of a file


class Runtime(ABC):
    """An opened file. Shapes are lists of numbers, with the batch in front as None or a name."""

    metadata: Mapping[str, str]
    inputs: Mapping[str, Sequence[Any]]
    outputs: Mapping[str, Sequence[Any]]

    @abstractmethod
    def run(self, outputs: Sequence[str], images: NDArray[np.float32]) -> list[Any]:
        """The outputs with these names, arrays of B rows, for preprocessed images (B, 3, R, R)."""
