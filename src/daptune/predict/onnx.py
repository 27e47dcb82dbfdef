"""`OnnxClassifier`: an exported file as a classifier of images, with numpy, Pillow and onnxruntime, or OpenVINO in its
place, but without torch.

The ONNX metadata of the file has one JSON object under the key "daptune".
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from daptune.clip.preprocess import Preprocess
from daptune.errors import AdapterError, BackboneError, DataError, foreign
from daptune.foreign import parse_json
from daptune.metrics import tail_p_values
from daptune.names import MOST_CLASSES, fault_of_name
from daptune.predict.exported import INPUT, KEY, LOGITS, PROBABILITIES, SIMILARITY
from daptune.predict.openvino import Rounding
from daptune.predict.predictor import Answers, Predictor
from daptune.predict.runtimes import RUNTIMES, Engine, open_model

FORMAT_VERSION = 3
"""2: with the output SIMILARITY, which version 1 does not know; 3: with `thresholds`."""
BYTES, VALUES = 16_000_000, 1_000_000
"""Limits of that object."""
BATCH, BATCH_ON_CPU = 64, 16
PRECISIONS = ("fp32", "bf16", "int8")
"""Of OpenVINO."""


@dataclass(frozen=True)
class Metadata:
    """What a program needs to know to run the file. JSON values only."""

    class_names: tuple[str, ...]
    preprocess: dict[str, Any]
    """`Preprocess.to_dict()`: size, mean and std of RGB scaled to 0..1, resize and crop, interpolation."""
    labels: list[int] | None = None
    """Predicted labels if the training labels were integers; None for the class names."""
    temperature: float = 1.0  # the output `probabilities` is softmax(logits / temperature)
    method: str = ""
    backbone: dict[str, str] = field(default_factory=dict)
    dtype: str = "fp32"
    """Number format of the image tower's matrices: fp32, fp16 or int8. Inputs and outputs are float32."""
    agreement: dict[str, Any] = field(default_factory=dict)  # measured agreement with torch at export
    version: str = ""  # version of daptune
    channels: str = "RGB"
    layout: str = "NCHW"
    similarity: tuple[float, ...] = ()  # of known images, ascending, to compare SIMILARITY with
    truth: tuple[float, ...] = ()  # probabilities of the true classes of known images, ascending, for prediction sets
    thresholds: tuple[float, ...] | None = None
    """An image shows each class from this probability on, (C,); `probabilities` are then sigmoids."""
    tower_ends: tuple[str, ...] = ()  # tensors of the graph that the image tower's last norm is given
    rounding: dict[str, Any] = field(default_factory=dict)  # a `Rounding`, for OpenVINO; empty if it was not measured
    format_version: int = 1

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)


class OnnxClassifier(Predictor):
    """A file written by `daptune export --to onnx`, with the interface of a fitted `FewShotClassifier`.

    model       path of the file, or its bytes
    device      "cpu", or "cuda" with onnxruntime-gpu
    batch_size  images per batch; by default 64, and 16 on the processor, whose caches hold no more
    engine      "onnxruntime", or "openvino" (daptune[openvino]): faster on processors with bfloat16
    precision   of openvino: "fp32", "bf16", its default where the processor has it, or "int8", the fastest
    """

    def __init__(
        self,
        model: str | Path | bytes,
        *,
        device: str = "cpu",
        batch_size: int | None = None,
        engine: Engine = "onnxruntime",
        precision: Literal["fp32", "bf16", "int8"] | None = None,
    ) -> None:
        if batch_size is None:
            batch_size = BATCH_ON_CPU if device == "cpu" else BATCH
        if batch_size < 1:
            raise DataError(f"expected a batch size of 1 or more, found {batch_size}.")
        if engine not in RUNTIMES:
            raise DataError(f"expected an engine of {', '.join(RUNTIMES)}, found {engine!r}.")
        if precision is not None and (engine != "openvino" or precision not in PRECISIONS):
            raise DataError(
                f"expected a precision of {', '.join(PRECISIONS)}, of openvino, found {precision!r} of {engine}."
            )
        name = "the model" if isinstance(model, bytes) else str(model)
        self._name, self._model = name, open_model(model, name, engine, device, precision)
        self.metadata, self._preprocess = _read_metadata(self._model.metadata, name)
        names = self.metadata.class_names
        self.classes_ = np.array(names if self.metadata.labels is None else self.metadata.labels)
        self.batch_size = batch_size
        self.scaled_decoding = False
        self._check(name)

    @property
    def preprocess(self) -> Preprocess:
        return self._preprocess

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Preprocessed images (B, 3, R, R) -> (B, C), for any B."""
        return self._run(LOGITS, images)

    def probabilities(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._run(PROBABILITIES, images)

    @property
    def truth(self) -> tuple[float, ...]:
        return self.metadata.truth

    @property
    def thresholds(self) -> NDArray[np.float32] | None:
        levels = self.metadata.thresholds
        return None if levels is None else np.array(levels, dtype=np.float32)

    def answers(self, images: NDArray[np.float32]) -> Answers:
        if not self.metadata.similarity:
            return Answers(self.probabilities(images))
        found, similarity = self._call([PROBABILITIES, SIMILARITY], images)
        return Answers(found, tail_p_values(self.metadata.similarity, similarity))

    def _run(self, output: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if not len(images):
            return np.empty((0, len(self.classes_)), np.float32)
        found: NDArray[np.float32] = self._call([output], images)[0]
        return found

    def _call(self, outputs: list[str], images: NDArray[np.float32]) -> list[Any]:
        try:
            return self._model.run(outputs, images)
        except Exception as error:  # the engines' errors have no narrower common class
            reason = " ".join(str(error).split())[:160]
            raise AdapterError(f"{self._name} cannot be run ({reason}); export it again") from error

    def _check(self, name: str) -> None:
        """Raise AdapterError if the shapes of the graph differ from those in its metadata."""
        size = self.preprocess.size
        inputs = {each: list(shape[1:]) for each, shape in self._model.inputs.items()}
        outputs = {each: list(shape[1:]) for each, shape in self._model.outputs.items()}
        row = [len(self.classes_)]
        expected: dict[str, list[int]] = {LOGITS: row, PROBABILITIES: row}
        if self.metadata.similarity:
            expected[SIMILARITY] = []
        if inputs != {INPUT: [3, size, size]} or outputs != expected:
            raise AdapterError(f"{name} is damaged: its graph does not match its metadata; export it again")


def open_exported(
    model: Path,
    *,
    engine: Engine | None = None,
    precision: str | None = None,
    backbone: str | None = None,
    **options: Any,
) -> OnnxClassifier:
    """The file with a command's options; `options` are further arguments of `OnnxClassifier`.

    Raises DataError for an option that an exported file leaves no choice of, and the errors of `OnnxClassifier`.
    """
    if backbone or (precision and engine != "openvino"):
        advice = "; --precision int8 needs --engine openvino" if precision == "int8" else ""
        own = "holds its backbone in its own precision; leave out --backbone and --precision"
        raise DataError(f"{model} {own}{advice}")
    if precision == "fp16-faithful":
        raise DataError("--engine openvino computes in fp32, bf16 or int8; found --precision fp16-faithful")
    options |= {"engine": engine or "onnxruntime", "precision": None if precision == "auto" else precision}
    return OnnxClassifier(model, **options)


def no_engine(adapter: Path | str) -> DataError:
    """The error for an engine of exported models with an adapter."""
    return DataError(f"--engine runs exported models; write one with `daptune export {adapter}`, or leave out --engine")


def _read_metadata(stored: Mapping[str, str], path: str) -> tuple[Metadata, Preprocess]:
    """Checked metadata and image transform of a file. Raises AdapterError if it is foreign, newer or damaged."""
    if KEY not in stored:
        raise AdapterError(f"{path} is an ONNX file, but not one that `daptune export` wrote; export the adapter")
    with foreign(lambda why: AdapterError(f"{path} is damaged: its metadata cannot be read ({why}); export it again")):
        content = parse_json(stored[KEY], most=BYTES, values=VALUES)
        version = content.pop("format_version")
        if version > FORMAT_VERSION:
            raise AdapterError(
                f"{path} was made by a newer daptune: format {version}, this version reads up to {FORMAT_VERSION}; "
                "update with: pip install -U daptune"
            )
        own = {item.name for item in fields(Metadata)}
        found = Metadata(**{name: value for name, value in content.items() if name in own})
        names = tuple(found.class_names)
        known = [_statistics(name, getattr(found, name)) for name in ("similarity", "truth")]
        if bool(known[0]) != bool(known[1]):
            raise ValueError("similarity and truth belong together")
        if not names or (found.labels is not None and len(found.labels) != len(names)):
            raise ValueError("class names and labels differ in number")
        _check_types(found)
        Rounding.read(found.rounding)
        if (levels := found.thresholds) is not None and (
            len(levels) != len(names) or not all(type(level) in (int, float) and 0 <= level <= 1 for level in levels)
        ):
            raise ValueError("thresholds is no list of a probability for every class")
        try:
            preprocess = Preprocess.from_dict(found.preprocess)
        except BackboneError as error:  # of this file's metadata, and not of a backbone
            raise ValueError(str(error)) from error
    return replace(found, class_names=names, similarity=known[0], truth=known[1], format_version=version), preprocess


def _check_types(found: Metadata) -> None:
    names: Any = found.class_names
    labels: Any = found.labels
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) > MOST_CLASSES:
        raise ValueError(f"class_names is no list of at most {MOST_CLASSES:,} names")
    if fault := next(filter(None, map(fault_of_name, names)), ""):
        raise ValueError(f"a class name cannot be used: {fault}")
    if labels is not None and not all(type(label) is int for label in labels):
        raise ValueError("labels is no list of whole numbers")


def _statistics(name: str, values: Any) -> tuple[float, ...]:
    """Ascending numbers up to 1, as `daptune.methods.ensemble.Mix` keeps them. Raises ValueError for others."""
    low = 0 if name == "truth" else -1.01
    numbers = isinstance(values, list | tuple) and all(isinstance(v, int | float) and low <= v <= 1.01 for v in values)
    if not numbers or list(values) != sorted(values):
        raise ValueError(f"{name} is not a list of ascending numbers up to 1")
    return tuple(map(float, values))
