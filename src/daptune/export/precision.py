"""int8: the matrices of the image tower in 8 bits, with one scale for each output channel.

By onnxruntime's dynamic quantisation what is multiplied with them is rounded to 8 bits as well, when the file runs. The
second matrix of each MLP keeps its input in float32: what comes out of the activation has outliers, and rounding it
cost most of the agreement. The patch embedding, the attention itself, norms and class weights stay in float32. The
other matrices use 7 of the 8 bits: processors without VNNI add products of full ones in 16 bits, which overflow. (fp16
is done in torch: `graph.folded` with half.)
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

LAST_NORM = "clip.visual.ln_post.weight"


def to_int8(model: Any) -> Any:
    """An `onnx.ModelProto` in float32 -> one in int8."""
    import onnx
    from onnxruntime.quantization import (  # type: ignore[import-untyped, unused-ignore]
        QuantType,
        quantize_dynamic,
    )

    shapes = {each.name: each.dims for each in model.graph.initializer}
    products = tower_products(model)
    narrowing = [node for node in products if np.subtract(*shapes[node.input[1]]) > 0]  # (4 W, W)
    # onnxruntime asks, in a warning, for a pass that the exporter has made; this is how that pass leaves its mark
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")
        quantize_dynamic(
            model,
            path,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=[node.name for node in products if node not in narrowing],
        )
        model = onnx.load(path)
    for name in sorted({node.input[1] for node in narrowing}):
        store_in_8_bits(model, name)
    return model


def tower_products(model: Any) -> list[Any]:
    """The products with a constant matrix up to the image tower's last norm, as nodes."""
    constants = {each.name for each in model.graph.initializer}
    nodes = list(model.graph.node)
    end = max((place for place, node in enumerate(nodes) if LAST_NORM in node.input), default=0)
    return [node for node in nodes[:end] if node.op_type == "MatMul" and node.input[1] in constants]


def store_in_8_bits(model: Any, name: str) -> None:
    """Replace a constant matrix by int8 numbers that are scaled back to float32 when the file runs."""
    from onnx import helper, numpy_helper

    (matrix,) = [each for each in model.graph.initializer if each.name == name]
    values = numpy_helper.to_array(matrix)
    scale = (np.abs(values).max(0) / 127).astype(np.float32)
    scale[scale == 0] = 1
    parts = {f"{name}.int8": np.round(values / scale).astype(np.int8), f"{name}.scale": scale}
    model.graph.initializer.remove(matrix)
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in parts.items())
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", list(parts), [name], f"{name}.back", axis=1))
