"""`OnnxClassifier`: an exported file as a classifier of images, with numpy, Pillow and onnxruntime, and no torch."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daptune.clip.preprocess import Preprocess
from daptune.errors import AdapterError, DataError, MissingExtraError
from daptune.predict.onnx_metadata import INPUT, LOGITS, PROBABILITIES, read_metadata
from daptune.predict.predictor import Predictor

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxClassifier(Predictor):
    """A file of `daptune export --to onnx`, with the face of a fitted `FewShotClassifier`.

    model       path of the file, or its bytes
    device      "cpu" or "cuda" (with onnxruntime-gpu)
    batch_size  images at a time in prediction

    `metadata` is what the file says of itself; `classes_`, `preprocess` and `scaled_decoding` are those of `Predictor`.
    """

    def __init__(self, model: str | Path | bytes, *, device: str = "cpu", batch_size: int = 64) -> None:
        if batch_size < 1:
            raise DataError(f"expected a batch size of 1 or more, found {batch_size}.")
        name = "the model" if isinstance(model, bytes) else str(model)
        self._session = _open(model, name, device)
        self.metadata, self._preprocess = read_metadata(self._session.get_modelmeta().custom_metadata_map, name)
        names = self.metadata.class_names
        self.classes_ = np.array(names if self.metadata.labels is None else self.metadata.labels)
        self.batch_size = batch_size
        self.scaled_decoding = False
        self._check(name)

    @property
    def preprocess(self) -> Preprocess:
        """The image transform of the file."""
        return self._preprocess

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Preprocessed images (B, 3, R, R) -> (B, C), B of any size."""
        return self._run(LOGITS, images)

    def probabilities(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """softmax(logits / temperature): (B, 3, R, R) -> (B, C)."""
        return self._run(PROBABILITIES, images)

    def _run(self, output: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if not len(images):
            return np.empty((0, len(self.classes_)), np.float32)
        found: NDArray[np.float32] = self._session.run([output], {INPUT: images})[0]
        return found

    def _check(self, name: str) -> None:
        """That the graph has the shapes that its metadata promises, told before the first image."""
        size = self.preprocess.size
        inputs = {each.name: each.shape[1:] for each in self._session.get_inputs()}
        outputs = {each.name: each.shape[1:] for each in self._session.get_outputs()}
        row = [len(self.classes_)]
        if inputs != {INPUT: [3, size, size]} or outputs != {LOGITS: row, PROBABILITIES: row}:
            raise AdapterError(f"{name} is damaged: its graph does not fit its metadata; export it again")


def _open(model: str | Path | bytes, name: str, device: str) -> Any:
    try:
        import onnxruntime  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise MissingExtraError(
            "running an ONNX file needs onnxruntime: pip install 'daptune[export]', or onnxruntime alone"
        ) from error
    if not isinstance(model, bytes) and not Path(model).expanduser().is_file():
        raise AdapterError(f"no file at {name}; `daptune export ADAPTER --to onnx --out model.onnx` writes one")
    if device not in _PROVIDERS or _PROVIDERS[device] not in onnxruntime.get_available_providers():
        extra = "; pip install onnxruntime-gpu" if device == "cuda" else ""
        raise AdapterError(f"onnxruntime cannot run on {device!r} here{extra}; use --device cpu")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings are on what it does to the graph, which no user can change
    source = model if isinstance(model, bytes) else str(Path(model).expanduser())
    try:
        return onnxruntime.InferenceSession(source, options, providers=[_PROVIDERS[device]])
    except Exception as error:  # onnxruntime's errors have no common class but this
        raise AdapterError(f"{name} is no ONNX file that can be run; `daptune export` writes one") from error
