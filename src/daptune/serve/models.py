"""Exported models as an engine: numpy, pillow and onnxruntime, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daptune.predict.onnx import OnnxClassifier
from daptune.serve.engine import AdapterInfo, Engine, Pixels, Probabilities, Served
from daptune.serve.limits import Refused


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
