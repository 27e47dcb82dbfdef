"""int8: the image tower's matrices in 8 bits, what is multiplied with them rounded to 8 bits when the file runs.

Dynamic quantisation by onnxruntime, one scale for each output channel. The patch embedding, the attention itself, norms
and class weights stay in float32. (fp16 is done in torch: `graph.folded` with half.) Weights have 7 of the 8 bits:
processors without VNNI add products of full 8-bit numbers in 16 bits, which overflow.
"""

import tempfile
from pathlib import Path
from typing import Any

LAST_NORM = "clip.visual.ln_post.weight"


def to_int8(model: Any) -> Any:
    """An `onnx.ModelProto` in float32 -> one in int8."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

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
            nodes_to_quantize=tower_products(model),
        )
        return onnx.load(path)


def tower_products(model: Any) -> list[str]:
    """Names of the products with a constant matrix up to the image tower's last norm."""
    constants = {each.name for each in model.graph.initializer}
    nodes = list(model.graph.node)
    end = max((place for place, node in enumerate(nodes) if LAST_NORM in node.input), default=0)
    return [node.name for node in nodes[:end] if node.op_type == "MatMul" and constants & set(node.input)]
