"""Programs that compute an exported ONNX file: onnxruntime, and OpenVINO, which uses bfloat16 where processors have it.

`open_model` opens a file after it was tried in a process with limits.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from daptune.errors import AdapterError, extra, foreign
from daptune.isolated import try_first

Engine = Literal["onnxruntime", "openvino"]
Source = str | bytes  # path or content of a file
KEY = "daptune"
MEMORY, GROWTH, SECONDS = 1_500_000_000, 8, 120
"""Bytes of memory and CPU time that a file may take for one image, and how many times its size on top."""
LARGEST_SIDE = 4096
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Runtime(ABC):
    """An opened file. Shapes are lists of numbers, with the batch in front as None or a name."""

    metadata: Mapping[str, str]
    inputs: Mapping[str, Sequence[Any]]
    outputs: Mapping[str, Sequence[Any]]

    @abstractmethod
    def run(self, outputs: Sequence[str], images: NDArray[np.float32]) -> list[Any]:
        """The outputs with these names, arrays of B rows, for preprocessed images (B, 3, R, R)."""


class OnnxRuntime(Runtime):
    """In the precision of the file."""

    def __init__(self, source: Source, device: str = "cpu", precision: str | None = None) -> None:
        del precision
        import onnxruntime  # type: ignore[import-untyped, unused-ignore]

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4 if isinstance(source, str) else 3  # errors are told by us, in one line
        session = onnxruntime.InferenceSession(source, options, providers=[_PROVIDERS[device]])
        self.metadata = session.get_modelmeta().custom_metadata_map
        self.inputs = {each.name: each.shape for each in session.get_inputs()}
        self.outputs = {each.name: each.shape for each in session.get_outputs()}
        self._session = session

    def run(self, outputs: Sequence[str], images: NDArray[np.float32]) -> list[Any]:
        (given,) = self.inputs
        return list(self._session.run(list(outputs), {given: images}))


class OpenVino(Runtime):
    """The image tower in bfloat16, where the processor has it, and what follows in float32.

    Features and logits that are rounded to bfloat16 too change eight times as many answers (docs/export.md). A
    file whose metadata does not name the end of its tower, of a residual network or an earlier version, is computed in
    float32.
    """

    def __init__(self, source: Source, device: str = "cpu", precision: str | None = None) -> None:
        del device  # the processor; other devices are refused before
        import openvino

        core = openvino.Core()
        try:
            model = core.read_model(source)
        except RuntimeError as error:  # lines of where in its sources, and then the reason
            raise ValueError(str(error).strip().rpartition("\n")[2]) from error
        stored = dict(model.rt_info["framework"]) if "framework" in model.rt_info else {}
        self.metadata = {name: str(value.astype(str)) for name, value in stored.items()}
        self.inputs = {each.any_name: _shape(each.partial_shape) for each in model.inputs}
        self.outputs = {each.any_name: _shape(each.partial_shape) for each in model.outputs}
        ends = [] if precision == "fp32" else _tower_ends(self.metadata)
        if precision == "bf16" and not ends:
            raise ValueError(
                "precision bf16 needs a file that says where its image tower ends; leave out the precision"
            )
        tower, head = _halves(model, ends) if ends else (None, model)
        hint = {"INFERENCE_PRECISION_HINT": "bf16"} if precision == "bf16" else {}
        self._tower = tower and core.compile_model(tower, "CPU", hint)
        self._head = core.compile_model(head, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(self, outputs: Sequence[str], images: NDArray[np.float32]) -> list[Any]:
        given = [images]  # a request for each call: one for all would not do in threads
        if self._tower:
            given += self._tower.infer_new_request([images]).values()
        found = self._head.infer_new_request(given)
        return [found[name] for name in outputs]


def _tower_ends(metadata: Mapping[str, str]) -> list[str]:
    """Names of the tensors that the last norm of the image tower is given; none of a foreign or older file."""
    try:
        named = json.loads(metadata.get(KEY, "{}")).get("tower_ends", [])
    except (ValueError, AttributeError):  # told when the metadata are read
        return []
    return [str(name) for name in named] if isinstance(named, list) else []


def _halves(model: Any, ends: Sequence[str]) -> tuple[Any, Any]:
    """Models of images -> the tensors `ends`, and of images and these -> the outputs. Raises ValueError without one."""
    import openvino
    from openvino import opset13

    known = {name: each for node in model.get_ops() for each in node.outputs() for name in each.get_names()}
    if missing := set(ends) - set(known):
        raise ValueError(f"its metadata name tensors that it does not have: {', '.join(sorted(missing))}")
    joints = []
    for name in ends:
        joint = opset13.parameter(known[name].partial_shape, known[name].element_type)
        for place in known[name].get_target_inputs():
            place.replace_source_output(joint.output(0))
        joints.append(joint)
    tower = openvino.Model([opset13.result(known[name]) for name in ends], model.get_parameters())
    return tower, openvino.Model(model.get_results(), [*model.get_parameters(), *joints])


def _shape(sizes: Any) -> list[int | None]:
    return [each.get_length() if each.is_static else None for each in sizes]


RUNTIMES: dict[str, Callable[[Source, str, str | None], Runtime]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}
_EXTRAS = {"onnxruntime": ("export", ", or onnxruntime alone"), "openvino": ("openvino", "")}


def open_model(model: str | Path | bytes, name: str, engine: Engine, device: str, precision: str | None) -> Runtime:
    """A file called `name` in messages. Raises AdapterError for a foreign or damaged one, MissingExtraError."""
    package, more = _EXTRAS[engine]
    with extra(package, f"running an ONNX file needs {engine}", more):
        __import__(engine)
    if not isinstance(model, bytes) and not Path(model).expanduser().is_file():
        raise AdapterError(f"no file at {name}; `daptune export ADAPTER --to onnx --out model.onnx` writes one")
    _check_device(engine, device)
    source = model if isinstance(model, bytes) else str(Path(model).expanduser())
    advice = "`daptune export` writes one"
    with foreign(lambda why: AdapterError(f"{name} is not an ONNX file that can be run ({why}); {advice}")):
        if isinstance(source, str):
            memory = MEMORY + GROWTH * os.path.getsize(source)
            try_first(f"daptune.predict.runtimes:try_{engine}", source, memory=memory, seconds=SECONDS)
        return RUNTIMES[engine](source, device, precision)


def _check_device(engine: Engine, device: str) -> None:
    if engine == "openvino":
        if device != "cpu":
            raise AdapterError(f"openvino runs here on the processor, not on {device!r}; use --device cpu")
        return
    import onnxruntime

    if device not in _PROVIDERS or _PROVIDERS[device] not in onnxruntime.get_available_providers():
        advice = "; pip install onnxruntime-gpu" if device == "cuda" else ""
        raise AdapterError(f"onnxruntime cannot run on {device!r} here{advice}; use --device cpu")


def try_onnxruntime(path: str) -> None:
    """Let a file answer to one black image, to see what it takes; the library raises whatever it likes."""
    _try(OnnxRuntime(path))


def try_openvino(path: str) -> None:
    """The same by OpenVINO."""
    _try(OpenVino(path))


def _try(model: Runtime) -> None:
    if KEY not in model.metadata:
        return  # not one of ours, which is told before it runs
    (shape,) = model.inputs.values()
    sizes = [1 if place == 0 else int(size) for place, size in enumerate(shape)]
    if len(sizes) != 4 or max(sizes) > LARGEST_SIDE:
        raise ValueError(f"it takes an input of shape {list(shape)}, and no images")
    model.run(list(model.outputs), np.zeros(sizes, np.float32))
