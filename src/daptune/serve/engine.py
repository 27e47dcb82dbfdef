"""What answers the requests: adapters on one CLIP (`pool`), or exported models, which need no torch."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from daptune.clip.preprocess import Preprocess
from daptune.predict.onnx import OnnxClassifier
from daptune.serve.limits import Refused

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


@dataclass(frozen=True, eq=False)
class ServedModel(Served):
    """A model in memory; each has a tower of its own, and so a `batch_key` of its own."""

    model: OnnxClassifier


class OnnxEngine(Engine[ServedModel]):
    """Models by name, all in memory. Raises AdapterError for a file that is no export."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._models: dict[str, ServedModel] = {}
        for name, path in files.items():
            model = OnnxClassifier(path)
            self._models[name] = ServedModel(name, model.classes_.tolist(), model.preprocess, ("model", name), model)

    def adapters(self) -> list[AdapterInfo]:
        """As `Engine.adapters`."""
        return [
            AdapterInfo(name=name, method="onnx", classes=list(each.classes), shared=False, loaded=True)
            for name, each in sorted(self._models.items())
        ]

    @property
    def loaded(self) -> int:
        """As `Engine.loaded`."""
        return len(self._models)

    def open(self, name: str, *, zero_shot: bool = False) -> ServedModel:
        """As `Engine.open`."""
        if name not in self._models:
            raise Refused(404, f"there is no model named {name!r}; GET /v1/adapters lists them.")
        if zero_shot:
            raise Refused(422, "an exported model has no text tower for zero-shot; serve the adapter itself.")
        return self._models[name]

    def run(self, served: Sequence[ServedModel], images: Sequence[Pixels]) -> list[Probabilities | Exception]:
        """As `Engine.run`."""
        model = served[0].model
        return list(model.probabilities(model.preprocess.normalized(np.stack(images))))
