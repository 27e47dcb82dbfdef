"""int8: the matrices of the image tower in 8 bits, with one scale for every 32 numbers of a column.

By onnxruntime's `MatMulNBits`, an operator of its own: what is multiplied with the matrices stays in float32. Dynamic
quantisation, which rounds that as well, made one picture of the demo in forty change its class, and an image's answer
depend on the others of its batch. The patch embedding, the attention itself, norms and class weights stay in float32.
(fp16 is done in torch: `graph.folded` with half.)
"""

import logging
from typing import Any

LAST_NORM = "clip.visual.ln_post.weight"
BLOCK = 32


def to_int8(model: Any) -> Any:
    """An `onnx.ModelProto` in float32 -> one in int8."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:  # its import sets up the logging of the whole process
        from onnxruntime.quantization.matmul_nbits_quantizer import (  # type: ignore[import-untyped, unused-ignore]
            MatMulNBitsQuantizer,
        )
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
    wanted = {node.name for node in tower_products(model)}
    others = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.name not in wanted]
    quantizer = MatMulNBitsQuantizer(model, bits=8, block_size=BLOCK, is_symmetric=True, nodes_to_exclude=others)
    quantizer.process()
    return quantizer.model.model


def tower_products(model: Any) -> list[Any]:
    """The products with a constant matrix up to the image tower's last norm, as nodes."""
    constants = {each.name for each in model.graph.initializer}
    nodes = list(model.graph.node)
    end = max((place for place, node in enumerate(nodes) if LAST_NORM in node.input), default=0)
    return [node for node in nodes[:end] if node.op_type == "MatMul" and node.input[1] in constants]
