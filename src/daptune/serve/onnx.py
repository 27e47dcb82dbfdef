"""Exported models as an engine: numpy, pillow and onnxruntime, no torch."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from daptune.data.images import decode
from daptune.serve.engine import AdapterInfo, Probabilities
from daptune.serve.limits import Refused

_LONGEST_SIDE = 1024  # of an image that waits in the queue; what a model sees is smaller


class ExportedClassifier(Protocol):
    """What `daptune.export.runtime.OnnxClassifier` offers."""

    @property
    def classes_(self) -> Any: ...

    def predict_proba(self, images: list[Image.Image], /) -> NDArray[np.float32]: ...


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model in memory."""

    name: str
    model: ExportedClassifier
    classes: Sequence[str | int]

    @property
    def batch_key(self) -> Hashable:
        """Each model has its own tower."""
        return "model", self.name


class OnnxEngine:
    """Models by name, all in memory."""

    def __init__(self, files: Mapping[str, Path], read: Callable[[Path], ExportedClassifier] | None = None) -> None:
        read = read or _read
        self._models: dict[str, ServedModel] = {}
        for name, path in files.items():
            model = read(path)
            self._models[name] = ServedModel(name, model, np.asarray(model.classes_).tolist())

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

    def prepare(self, data: bytes, max_pixels: int) -> Image.Image:
        """The decoded image, shrunk where its shorter side is far beyond what any model reads."""
        image = decode(data, max_pixels=max_pixels)
        factor = min(image.size) // _LONGEST_SIDE
        return image.reduce(factor) if factor > 1 else image

    def run(self, served: Sequence[ServedModel], images: Sequence[Image.Image]) -> list[Probabilities | Exception]:
        """As `Engine.run`."""
        return list(served[0].model.predict_proba(list(images)))


def _read(path: Path) -> ExportedClassifier:
    from importlib import import_module

    runtime = import_module("daptune.export.runtime")
    model: ExportedClassifier = runtime.OnnxClassifier(path)
    return model
