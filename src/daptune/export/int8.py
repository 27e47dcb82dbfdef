"""int8: 8-bit matrices of the image tower, with one scale per 32 numbers of a column.

This uses onnxruntime's operator `MatMulNBits`, which keeps activations in float32. Dynamic quantisation rounds them
too: it changed the class of one demo image in forty and made predictions depend on the other images of the batch.
Patch embedding, attention products, norms and class weights stay in float32. For fp16 see `graph.folded`.
"""

import logging
from typing import Any

BLOCK = 32


def to_int8(model: Any, last: str) -> Any:
    """The model with the matrices up to the use of `last`, a parameter's name in the graph, in 8 bits."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:  # this import configures the root logger
        from onnxruntime.quantization.matmul_nbits_quantizer import (  # type: ignore[import-untyped, unused-ignore]
            MatMulNBitsQuantizer,
        )
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
    wanted = {node.name for node in tower_products(model, last)}
    others = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.name not in wanted]
    quantizer = MatMulNBitsQuantizer(model, bits=8, block_size=BLOCK, is_symmetric=True, nodes_to_exclude=others)
    quantizer.process()
    return quantizer.model.model


def tower_products(model: Any, last: str) -> list[Any]:
    """Nodes of products with a constant matrix before the parameter `last` is used."""
    constants = {each.name for each in model.graph.initializer}
    nodes = list(model.graph.node)
    end = max((place for place, node in enumerate(nodes) if last in node.input), default=0)
    return [node for node in nodes[:end] if node.op_type == "MatMul" and node.input[1] in constants]
