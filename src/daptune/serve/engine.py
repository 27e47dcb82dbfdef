"""What answers the requests: adapters on one CLIP (`pool`), or exported models (`models`)."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from daptune.clip.preprocess import Preprocess

Pixels = NDArray[np.uint8]
"""An image as it waits in the queue: resized and cropped, (R, R, 3)."""
Probabilities = NDArray[np.float32]
"""(C,), in the order of the classes."""


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


@dataclass(frozen=True, eq=False)
class Served:
    """An adapter or a model in memory."""

    name: str
    classes: Sequence[str | int]
    preprocess: Preprocess
    batch_key: Hashable
    """Images for those with equal keys may be given to `Engine.run` together."""


S = TypeVar("S", bound=Served)


class Engine(ABC, Generic[S]):
    """Some adapters or models, and what runs them: `open` is called from any thread, `run` from one."""

    @abstractmethod
    def adapters(self) -> list[AdapterInfo]:
        """All of them, by name."""

    @property
    @abstractmethod
    def loaded(self) -> int:
        """How many are in memory."""

    @abstractmethod
    def open(self, name: str, *, zero_shot: bool = False) -> S:
        """The adapter, or the zero-shot classifier of its classes, read from disk if need be.

        Raises `Refused` 404 where there is none of that name, 422 where there is no zero-shot classifier, and
        DaptuneError where it cannot be read.
        """

    @abstractmethod
    def run(self, served: Sequence[S], images: Sequence[Pixels]) -> list[Probabilities | Exception]:
        """The probabilities of each image under the adapter at its place; all adapters have one `batch_key`.

        An adapter that fails leaves the others' results as they are.
        """
