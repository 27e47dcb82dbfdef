"""A method as one graph: preprocessed images in, logits and probabilities out.

`Method.logits` itself is traced, so any method exports whose logits need no text tower once the class weights are
known. What the text tower gives is computed before and becomes a constant.
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

from daptune.errors import MethodError, MissingExtraError
from daptune.methods import Method
from daptune.predict.onnx import INPUT, LOGITS, PROBABILITIES

TRACED_BATCH = 2
OPSET = 18  # onnxruntime 1.14 of 2023 and newer
LARGEST = 2**31 - 2**24  # bytes; one file of Protocol Buffers ends at 2 GiB


class _NoTextTower(nn.Module):
    """Stands where the text tower was, and says so to whoever asks for it."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method

    @property
    def blocks(self) -> Any:
        raise MethodError(
            f"{self.method} needs the text tower for every image, and an exported file has no text tower; "
            "use the adapter itself, or export an adapter of another method."
        )


class Graph(nn.Module):
    """What is traced: images (B, 3, R, R) -> logits (B, C) and softmax(logits / temperature) (B, C)."""

    def __init__(self, method: Method, temperature: float) -> None:
        super().__init__()
        self.method = method
        self.clip = method.clip  # no submodule of a method, but its weights belong to the graph
        self.temperature = temperature

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As the class says."""
        logits = self.method.logits(images).float()
        return logits, (logits / self.temperature).softmax(-1)


@torch.no_grad()
def folded(method: Method, *, half: bool = False) -> Method:
    """A copy of a method, on the CPU, whose class weights are constants and whose CLIP has no text tower.

    half: the matrices of the image tower in float16; class weights are computed in the precision that they have.
    """
    constants = {}
    for name in ("text_features", "class_text_features"):
        try:
            constants[name] = getattr(method, name)().detach().clone()
        except MethodError:
            continue  # it has none, such as a linear probe; what needs an image for them is told when it is traced
    backbone, clip = method.backbone, method.clip
    kept: dict[int, Any] = {id(clip.token_embedding): clip.token_embedding, id(backbone.tokenizer): backbone.tokenizer}
    bare = deepcopy(clip, {id(clip.transformer): _NoTextTower(method.name), **kept})
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
    """The `onnx.ModelProto` of a `folded` method, whose batch is dynamic.

    Raises MethodError, one line, for a method that needs the text tower or cannot be traced.
    """
    try:
        import onnx  # noqa: F401
        from onnxscript.optimizer import fold_constants
    except ImportError as error:
        raise MissingExtraError(f"exporting needs {error.name}: pip install 'daptune[export]'") from error
    size = sum(tensor.nbytes for tensor in method.clip.visual.state_dict().values())
    if size > LARGEST:
        raise MethodError(
            f"the image tower has {size / 1e9:.1f} GB, and one ONNX file holds 2.1 GB; choose --dtype fp16 or a "
            "smaller backbone."
        )
    graph = Graph(method, temperature).eval()
    side = method.clip.config.image_size
    example = torch.zeros(TRACED_BATCH, 3, side, side)
    graph(example)  # a method that asks for the text tower says so here, before the work
    try:
        with _quietly():
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[LOGITS, PROBABILITIES],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
            model: Any = program  # a program, and None only for an exporter that is not asked for
            # the exporter leaves large matrices transposed at run time, where nothing can quantise them
            fold_constants(model.model, input_size_limit=LARGEST, output_size_limit=LARGEST)
    except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise MethodError(f"{method.name} cannot be written as ONNX ({reason}); use the adapter itself.") from error
    return model.model_proto


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's remarks, on other packages and on itself, which are nothing to the user."""
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
