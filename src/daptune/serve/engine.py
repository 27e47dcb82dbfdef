"""What the server needs of whatever classifies: adapters on one CLIP (`pool`), or an exported model (`onnx`).

An engine is used from several threads: `open` and `prepare` from any, `run` from one.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float32]  # (C,), in the order of the classes


@dataclass(frozen=True)
class AdapterInfo:
    """An adapter in the list of `GET /v1/adapters`."""

    name: str
    method: str
    classes: list[str | int]
    shared: bool
    """Whether its images go through the image tower together with those of other adapters."""
    loaded: bool
    """Whether it is in memory now."""
    taught: bool = False
    """Whether it was taught here, so that its images are at hand."""
    shots: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)


class Served(Protocol):
    """An adapter in memory."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> Sequence[str | int]: ...

    @property
    def batch_key(self) -> Hashable:
        """Images of adapters with equal keys may be given to `Engine.run` together."""


class Engine(Protocol):
    """Some adapters and what runs them."""

    def adapters(self) -> list[AdapterInfo]:
        """All of them, by name."""

    @property
    def loaded(self) -> int:
        """How many are in memory."""

    def open(self, name: str, *, zero_shot: bool = False) -> Served:
        """The adapter, or the zero-shot classifier of its classes, read from disk if need be.

        Raises `Refused` 404 where there is none of that name, 422 where there is no zero-shot classifier, and
        DaptuneError where it cannot be read.
        """

    def prepare(self, data: bytes, max_pixels: int) -> Any:
        """An image file as `run` takes it, small enough to wait in a queue. Raises DataError."""

    def run(self, served: Sequence[Any], images: Sequence[Any]) -> list[Probabilities | Exception]:
        """The probabilities of each image under the adapter at its place; all adapters have one `batch_key`."""
