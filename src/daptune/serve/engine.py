"""What answers the requests: adapters on one CLIP (`pool`), or exported models, which need no torch."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from daptune.clip.preprocess import Preprocess
from daptune.predict.onnx import OnnxClassifier
from daptune.serve.limits import Refused

if TYPE_CHECKING:
    from daptune.serve.pool import AdapterPool

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

    classes: Sequence[str | int]
    preprocess: Preprocess
    batch_key: Hashable
    """Images for those with equal keys may be given to the engine's `run` together."""


@dataclass(frozen=True, eq=False)
class ServedModel(Served):
    """A model in memory; each has a tower of its own, and so a `batch_key` of its own."""

    model: OnnxClassifier


class OnnxEngine:
    """Models by name, all in memory, used as an `AdapterPool` is. Raises AdapterError for a file that is no export."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._models: dict[str, ServedModel] = {}
        for name, path in files.items():
            model = OnnxClassifier(path)
            self._models[name] = ServedModel(model.classes_.tolist(), model.preprocess, ("model", name), model)

    def adapters(self) -> list[AdapterInfo]:
        """All of them, by name."""
        return [
            AdapterInfo(name=name, method="onnx", classes=list(each.classes), shared=False, loaded=True)
            for name, each in sorted(self._models.items())
        ]

    @property
    def loaded(self) -> int:
        """How many are in memory."""
        return len(self._models)

    def open(self, name: str, *, zero_shot: bool = False) -> ServedModel:
        """The model. Raises `Refused` 404 where there is none of that name, 422 for a zero-shot classifier."""
        if name not in self._models:
            raise Refused(404, f"there is no model named {name!r}; GET /v1/adapters lists them.")
        if zero_shot:
            raise Refused(422, "an exported model has no text tower for zero-shot; serve the adapter itself.")
        return self._models[name]

    def run(self, served: Sequence[ServedModel], images: Sequence[Pixels]) -> list[Probabilities | Exception]:
        """The probabilities of each image under the one model that is at every place of `served`."""
        model = served[0].model
        return list(model.probabilities(model.preprocess.normalized(np.stack(images))))


Engine: TypeAlias = Union["AdapterPool", OnnxEngine]
"""What answers: `open` is called from any thread, `run` from one."""
