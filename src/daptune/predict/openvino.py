"""OpenVINO: exported models in bfloat16 or in 8 bits, with near ties computed again in a finer precision.

The image tower runs in the precision that was asked for, and what follows it in float32: features and logits that are
rounded too change eight times as many answers (docs/export.md). An image whose two most likely classes are then nearer
to each other than the rounding moves them (`Rounding.margins`) is computed again: int8 -> bf16 -> fp32.

In 8 bits, a product of all tokens with a constant matrix is one of whole numbers: 256 steps over the range that its
input had at the export, 255 over each column of the matrix. Patch embedding, attention, norms, and what is computed for
the class token alone keep their precision.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daptune.errors import AdapterError
from daptune.predict.exported import KEY, PROBABILITIES, Runtime, Source

Outputs = dict[str, NDArray[np.float32]]
FINER = {"int8": "bf16", "bf16": "fp32"}


@dataclass(frozen=True)
class Rounding:
    """What `daptune.export.rounding` measured. JSON values only.

    ranges     of the input of each product, (lowest, highest), by the name of the product's result
    margins    of "bf16" and "int8": the least difference between the two highest probabilities that stands
    same       share of other images with the same answer as in fp32, by the same names
    again      share of those that were computed again in a finer precision
    images     how many other images
    """

    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    margins: dict[str, float] = field(default_factory=dict)
    same: dict[str, float] = field(default_factory=dict)
    again: dict[str, float] = field(default_factory=dict)
    images: int = 0

    @classmethod
    def read(cls, stored: Any) -> "Rounding":
        """From a file's metadata. Raises ValueError, TypeError or AttributeError for what this class cannot be."""
        names = [item.name for item in fields(cls)]
        found = cls(**{name: value for name, value in stored.items() if name in names})
        numbers = [*found.margins.values(), *(end for ends in found.ranges.values() for end in ends)]
        if set(found.margins) - set(FINER) or not all(type(n) in (int, float) and abs(n) < 1e30 for n in numbers):
            raise ValueError("rounding has other content than margins and ranges")
        if any(len(ends) != 2 or ends[0] > ends[1] for ends in found.ranges.values()):
            raise ValueError("a range is not a lowest and a highest number")
        return found


class OpenVino(Runtime):
    """A file whose metadata does not name the end of its tower, of a residual network or an earlier version, is
    computed in float32. `precision`: None is bf16 where the processor has it, else fp32. `rounding` replaces the
    file's. Raises AdapterError for a precision that the file does not allow.

    tower     the model up to the last norm, if it has an end
    has_bf16  whether the processor has it
    """

    def __init__(
        self,
        source: Source,
        device: str = "cpu",
        precision: str | None = None,
        rounding: Rounding | None = None,
    ) -> None:
        del device  # the processor; other devices are refused before
        import openvino

        self._core = openvino.Core()
        try:
            model = self._core.read_model(source)
        except RuntimeError as error:  # lines of where in its sources, and then the reason
            raise ValueError(str(error).strip().rpartition("\n")[2]) from error
        stored = dict(model.rt_info["framework"]) if "framework" in model.rt_info else {}
        self.metadata = {name: str(value.astype(str)) for name, value in stored.items()}
        self.inputs = {each.any_name: _shape(each.partial_shape) for each in model.inputs}
        self.outputs = {each.any_name: _shape(each.partial_shape) for each in model.outputs}
        ends, self._levels, stored_rounding = _known(self.metadata)
        self._rounding = rounding or stored_rounding
        self.has_bf16 = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._stages = self._precisions(precision, bool(ends))
        tower, head = halves(model, ends) if ends else (None, model)
        self.tower: Any = tower
        self._towers: dict[str, Any] = {}  # compiled when they are needed
        self._head = self._core.compile_model(head, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        if ends:
            self._compiled(self._stages[0])

    def run(self, outputs: Sequence[str], images: NDArray[np.float32]) -> list[Any]:
        found = self.decided(self.at(self._stages[0], images), images)
        return [found[name] for name in outputs]

    def decided(self, found: Outputs, images: NDArray[np.float32]) -> Outputs:
        """What the first precision found of the images, with near ties computed again."""
        for precision, finer in pairwise(self._stages):
            near = gap(found[PROBABILITIES], self._levels) < self._rounding.margins[precision]
            if near.any():
                for name, values in self.at(finer, images[near]).items():
                    found[name][near] = values
        return found

    def at(self, precision: str, images: NDArray[np.float32]) -> Outputs:
        """All outputs, in this precision alone."""
        given = [images]  # a request for each call: one for all would not do in threads
        if self.tower:
            given += self._compiled(precision).infer_new_request([images]).values()
        found = self._head.infer_new_request(given)
        return {name: np.array(found[name]) for name in self.outputs}

    def _precisions(self, asked: str | None, has_end: bool) -> list[str]:
        """The one to begin with, and those of near ties."""
        first = asked or ("bf16" if self.has_bf16 and has_end else "fp32")
        if first == "fp32":
            return [first]
        if not has_end:
            raise AdapterError(
                f"precision {first} needs a file that says where its image tower ends; leave out the precision"
            )
        if first == "int8" and not self._rounding.ranges:
            raise AdapterError(
                "precision int8 needs a file with the ranges of its products: export it again in fp32 where openvino "
                "is installed, with --images FOLDER of 20 or more images"
            )
        finer = [first]
        while finer[-1] in self._rounding.margins:
            finer.append(FINER[finer[-1]])
        return [name for name in finer if name == first or self.has_bf16 or name != "bf16"]

    def _compiled(self, precision: str) -> Any:
        if precision not in self._towers:
            tower = in_8_bits(self.tower, self._rounding.ranges) if precision == "int8" else self.tower
            rest = "f32" if precision == "fp32" or (precision == "int8" and not self.has_bf16) else "bf16"
            self._towers[precision] = self._core.compile_model(tower, "CPU", {"INFERENCE_PRECISION_HINT": rest})
        return self._towers[precision]


def gap(probabilities: NDArray[np.float32], levels: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """(B,), how far each answer is from another: between the two highest probabilities of (B, C), or with `levels`
    (C,), from which on an image shows a class, between a probability and its level. 1 with one class."""
    if levels is not None:
        return np.abs(probabilities - levels).min(axis=1)
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities), np.float32)
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return first - second


def _known(metadata: Mapping[str, str]) -> tuple[list[str], NDArray[np.float32] | None, Rounding]:
    """The tensors that the last norm of the image tower is given, the levels of several labels, and the rounding; none
    of a foreign or older file, and of damaged metadata, which are told when they are read."""
    try:
        stored = json.loads(metadata.get(KEY, "{}"))
        ends, levels = [str(name) for name in stored.get("tower_ends") or []], stored.get("thresholds")
        return ends, None if levels is None else np.array(levels, np.float32), Rounding.read(stored.get("rounding", {}))
    except (ValueError, TypeError, AttributeError):
        return [], None, Rounding()


def halves(model: Any, ends: Sequence[str]) -> tuple[Any, Any]:
    """Models of images -> the tensors `ends`, and of images and these -> the outputs. Raises ValueError without one."""
    import openvino
    from openvino import opset13

    known = _by_name(model)
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


def products(tower: Any) -> dict[str, Any]:
    """The products of all tokens with a constant matrix, by the names of their results."""
    found = [node for node in tower.get_ordered_ops() if _is_product(node)]
    return {node.output(0).any_name: node for node in found if node.output(0).names}


def inputs_of_products(tower: Any) -> Callable[[NDArray[np.float32]], Outputs]:
    """What computes the inputs of `products` in float32, by the same names, for images (B, 3, R, R)."""
    import openvino
    from openvino import opset13

    own = products(tower)
    seen = openvino.Model([opset13.result(node.input_value(0)) for node in own.values()], tower.get_parameters())
    compiled = openvino.Core().compile_model(seen, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: dict(zip(own, compiled(images).values(), strict=True))


def in_8_bits(tower: Any, ranges: Mapping[str, Sequence[float]]) -> Any:
    """A copy of the tower with the products of these names in 8 bits. Raises ValueError if it has others."""
    from openvino import opset13

    copied = tower.clone()
    own = products(copied)
    if missing := set(ranges) - set(own):
        raise ValueError(f"its metadata name products that it does not have: {', '.join(sorted(missing))}")
    for name, ends in ranges.items():
        product = own[name]
        transposed = product.get_attributes()["transpose_b"]
        matrix = np.array(product.input_value(1).get_node().data, np.float32)
        low, high = np.float32(min(ends[0], 0.0)), np.float32(max(ends[1], 1e-6))  # 0 is one of the steps
        most = np.abs(matrix).max(axis=1 if transposed else 0, keepdims=True) + np.float32(1e-12)
        seen = opset13.fake_quantize(product.input_value(0), low, high, low, high, 256)
        whole = opset13.fake_quantize(opset13.constant(matrix), -most, most, -most, most, 255)
        again = opset13.matmul(seen, whole, False, transposed)
        for place in product.output(0).get_target_inputs():
            place.replace_source_output(again.output(0))
    copied.validate_nodes_and_infer_types()
    return copied


def _is_product(node: Any) -> bool:
    if node.get_type_name() != "MatMul" or node.input_value(1).get_node().get_type_name() != "Constant":
        return False
    shape = node.input_value(0).partial_shape
    one = len(shape) < 3 or (shape[1].is_static and shape[1].get_length() == 1)  # the class token alone
    return not (one or node.get_attributes()["transpose_a"])


def _by_name(model: Any) -> dict[str, Any]:
    return {name: each for node in model.get_ops() for each in node.outputs() for name in each.get_names()}


def _shape(sizes: Any) -> list[int | None]:
    return [each.get_length() if each.is_static else None for each in sizes]
