"""Programs that compute an exported ONNX file: onnxruntime, in the precision of the file, and OpenVINO (openvino.py).

`open_model` opens a file after it was tried in a process with limits.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from daptune.errors import AdapterError, extra, foreign
from daptune.isolated import try_first
from daptune.predict.exported import KEY, Runtime, Source
from daptune.predict.openvino import OpenVino

Engine = Literal["onnxruntime", "openvino"]
MEMORY, GROWTH, SECONDS = 1_500_000_000, 8, 120
"""Bytes of memory and CPU time that a file may take for one image, and how many times its size on top."""
LARGEST_SIDE = 4096
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


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
    with foreign(
        lambda why: AdapterError(f"{name} is not an ONNX file that can be run ({why}); {advice}"),
        passing=(AdapterError,),
    ):
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
