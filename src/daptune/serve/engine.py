"""Engines that classify images: adapters of one CLIP (`pool`), or exported models without torch."""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from daptune.clip.preprocess import Preprocess
from daptune.errors import AdapterError
from daptune.predict.onnx import OnnxClassifier, open_exported
from daptune.serve.limits import Refused

Pixels = NDArray[np.uint8]  # an image in the queue: resized and cropped, (R, R, 3)


@dataclass(frozen=True, eq=False)
class Answer:
    """probabilities (C,) in the order of the classes; known: p value among known images, None without statistics."""

    probabilities: NDArray[np.float32]
    known: float | None = None

    @classmethod
    def of(cls, probabilities: NDArray[np.float32], known: NDArray[np.float64] | None) -> "list[Answer]":
        """The answers of a batch: (B, C), (B,)."""
        every = [None] * len(probabilities) if known is None else known.tolist()
        return [cls(*pair) for pair in zip(probabilities, every, strict=True)]


@dataclass(frozen=True)
class AdapterInfo:
    """An entry of `GET /v1/adapters`."""

    name: str
    method: str
    classes: list[str | int]
    shared: bool
    """Whether it shares batches with other adapters."""
    loaded: bool
    """Whether it is in memory."""
    multi_label: bool = False
    """Whether an image may show any number of its classes."""
    known_images: int = 0
    """Images that new ones are compared with for `reject`, 255 at most; 0: `reject` is refused."""
    taught: bool = False
    """Whether it was trained on this server, which keeps its training images."""
    shots: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    status: Literal["ready", "broken"] = "ready"
    """`broken`: its files are there, but it cannot be served."""
    error: str | None = None
    """Why it is broken."""

    @classmethod
    def broken(cls, name: str, error: str) -> Self:
        return cls(name, "", [], shared=False, loaded=False, status="broken", error=error)

    def check(self) -> Self:
        """Itself. Raises AdapterError if a listing could not hold it: nested too deeply, too long, or no UTF-8."""
        try:
            size = len(_LISTED.dump_json([self]))
            json.dumps(self.metrics, allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:  # pydantic's are ValueErrors
            reason = " ".join(str(error).split())[:120]
            raise AdapterError(f"the adapter {self.name!r} cannot be listed ({reason}); fit again") from error
        if size > LONGEST_ENTRY:
            raise AdapterError(f"the adapter {self.name!r} has {size:,} bytes to list; {LONGEST_ENTRY:,} at most")
        return self


LONGEST_ENTRY = 10_000_000
"""Bytes; 21,841 classes with a figure for each have a tenth of it."""
_LISTED = TypeAdapter(list[AdapterInfo])  # what answers to requests are made with


@dataclass(frozen=True, eq=False)
class Served:
    classes: Sequence[str | int]
    preprocess: Preprocess
    batch_key: Hashable
    """Images of classifiers with equal keys can share a call of the engine's `run`."""
    judges: bool
    """Whether `Answer.known` is a number."""
    thresholds: NDArray[np.float32] | None
    """The probability from which an image shows each class, (C,); None: it shows one."""


@dataclass(frozen=True, eq=False)
class ServedModel(Served):
    """A model in memory; models share no batches, so each has its own `batch_key`."""

    model: OnnxClassifier


class OnnxEngine:
    """Exported models by name, with the interface of `AdapterPool`; all are in memory.

    `options` are those of `open_exported`. Raises AdapterError for a file that is not an export.
    """

    def __init__(self, files: Mapping[str, Path], **options: Any) -> None:
        self._models: dict[str, ServedModel] = {}
        for name, path in files.items():
            model = open_exported(path, **options)
            judges = bool(model.metadata.similarity)
            self._models[name] = ServedModel(
                model.classes_.tolist(), model.preprocess, ("model", name), judges, model.thresholds, model
            )

    def adapters(self) -> list[AdapterInfo]:
        return [
            AdapterInfo(
                name=name,
                method="onnx",
                classes=list(each.classes),
                shared=False,
                loaded=True,
                multi_label=each.thresholds is not None,
                known_images=len(each.model.metadata.similarity),
            )
            for name, each in sorted(self._models.items())
        ]

    @property
    def loaded(self) -> int:
        return len(self._models)

    def open(self, name: str, *, zero_shot: bool = False) -> ServedModel:
        """The model. Raises `Refused`: 404 unknown name, 422 zero-shot classifier."""
        if name not in self._models:
            raise Refused(404, f"there is no model named {name!r}; GET /v1/adapters lists them.")
        if zero_shot:
            raise Refused(422, "an exported model has no text tower for zero-shot; serve the adapter itself.")
        return self._models[name]

    def run(self, served: Sequence[ServedModel], images: Sequence[Pixels]) -> list[Answer | Exception]:
        """Answers to each image by the one model that all entries of `served` share."""
        model = served[0].model
        found = model.answers(model.preprocess.normalized(np.stack(images)))
        return [*Answer.of(found.probabilities, found.known)]
