"""A method as one graph: preprocessed images -> logits and probabilities.

The trace is of `Method.logits`, so every method exports that needs the text tower only for class weights. These are
computed before the trace and become constants.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from daptune.errors import MethodError, extra
from daptune.methods import Method
from daptune.predict.exported import INPUT, LOGITS, PROBABILITIES, SIMILARITY

TRACED_BATCH = 2
OPSET = 18  # onnxruntime >= 1.14 (2023)
LARGEST = 2**31 - 2**24  # bytes; Protocol Buffers limit a file to 2 GiB


class _NoTextTower(nn.Module):
    """Placeholder for the text tower that raises MethodError when it is used."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method

    def features(self, *inputs: Any, **options: Any) -> Tensor:
        raise MethodError(
            f"{self.method} needs the text tower for every image, and an exported file has no text tower; "
            "use the adapter itself, or export an adapter of another method."
        )

    encode = features


class Graph(nn.Module):
    """The traced module: images (B, 3, R, R) -> logits (B, C) and their `Method.probabilities` (B, C).

    With statistics of known images also the similarity to the nearest class mean, (B,).
    """

    def __init__(self, method: Method, temperature: float) -> None:
        super().__init__()
        self.method = method
        self.clip = method.clip  # not a submodule of a method, but the graph needs its weights
        self.temperature = temperature

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        ensemble = self.method.ensemble
        seen = images if ensemble is None else self.method.encode(images)
        logits = self.method.answer(seen).float()
        found = logits, self.method.probabilities(logits, self.temperature)
        if ensemble is None or not ensemble.mix.similarity:
            return found
        return *found, ensemble.similarity(seen)


@torch.no_grad()
def folded(method: Method, *, half: bool = False) -> Method:
    """A copy of a method on the CPU with constant class weights and without text tower.

    half: the matrices of the image tower in float16; class weights keep their precision.
    """
    constants = {}
    for name in ("text_features", "class_text_features"):
        try:
            constants[name] = getattr(method, name)().detach().clone()
        except MethodError:
            continue  # no text features, as in a linear probe; if they depend on the image, `trace` raises
    backbone, clip = method.backbone, method.clip
    kept: dict[int, Any] = {id(backbone.tokenizer): backbone.tokenizer}
    bare = deepcopy(clip, {id(clip.text): _NoTextTower(method.name), **kept})
    if half:
        bare.set_precision("fp16")
    copy = deepcopy(method, {id(backbone): replace(backbone, clip=bare), id(clip): bare, **kept})
    if "class_text_features" in constants:
        constants["logit_weights"] = constants["class_text_features"]
    for name, value in constants.items():
        copy.register_buffer(f"folded_{name}", value, persistent=False)
        setattr(copy, name, lambda held=f"folded_{name}": getattr(copy, held))
    return copy.requires_grad_(False).eval().to("cpu")


@torch.no_grad()
def trace(method: Method, temperature: float) -> Any:
    """The `onnx.ModelProto` of a `folded` method, batch size dynamic. Raises MethodError if it cannot be traced."""
    with extra("export", "exporting needs {}"):
        import onnx  # noqa: F401
        from onnxscript.optimizer import fold_constants
    size = sum(tensor.nbytes for tensor in method.clip.visual.state_dict().values())
    if size > LARGEST:
        raise MethodError(
            f"the image tower has {size / 1e9:.1f} GB, and one ONNX file holds 2.1 GB; choose --dtype fp16 or a "
            "smaller backbone."
        )
    graph = Graph(method, temperature).eval()
    side = method.clip.config.image_size
    example = torch.zeros(TRACED_BATCH, 3, side, side)
    found = graph(example)  # a method that needs the text tower raises here, before the slow export
    outputs = [LOGITS, PROBABILITIES, SIMILARITY][: len(found)]
    try:
        with _quietly():
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
            model: Any = program  # never None with dynamo=True
            # the exporter transposes large matrices at run time, where they cannot be quantised
            fold_constants(model.model, input_size_limit=LARGEST, output_size_limit=LARGEST)
    except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise MethodError(f"{method.name} cannot be written as ONNX ({reason}); use the adapter itself.") from error
    return model.model_proto


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the exporter's warnings, which do not concern the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
