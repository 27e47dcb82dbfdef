"""OpenVINO in bfloat16 and 8 bits: products by hand, and near ties that a finer precision decides."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from daptune.classifier import FewShotClassifier
from daptune.cli import run
from daptune.errors import AdapterError
from daptune.export.onnx_file import export_onnx
from daptune.predict.exported import KEY, PROBABILITIES
from daptune.predict.onnx import OnnxClassifier
from daptune.predict.openvino import OpenVino, Rounding, gap, in_8_bits, products

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def rounded(exact: FewShotClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up adapter with the ranges and margins of thirty pictures; not to be changed."""
    from ..conftest import CLASSES, COLOURS, save_picture

    folder = tmp_path_factory.mktemp("rounded")
    for number in range(30):
        name = CLASSES[number % 3]
        save_picture(folder / "pictures" / f"{number:02}.png", COLOURS[name], 500 + number)
    return export_onnx(exact, folder / "model.onnx", images=folder / "pictures").path


def noise(path: Path, count: int) -> NDArray[np.float32]:
    side = OnnxClassifier(path).preprocess.size
    return np.random.default_rng(3).standard_normal((count, 3, side, side)).astype(np.float32)


def with_rounding(path: Path, rounding: dict[str, Any], out: Path) -> Path:
    """A copy of a file with other content under `rounding`."""
    model = onnx.load(path)
    stored = json.loads(next(each.value for each in model.metadata_props if each.key == KEY))
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=json.dumps(stored | {"rounding": rounding}))
    out.write_bytes(model.SerializeToString())
    return out


def test_a_product_in_8_bits_is_the_one_by_hand() -> None:
    import openvino
    from openvino import opset13

    rng = np.random.default_rng(0)
    x, matrix = rng.uniform(-1.5, 3.5, (2, 7, 16)).astype(np.float32), rng.normal(size=(16, 5)).astype(np.float32)
    given = opset13.parameter([-1, 7, 16], np.float32)
    found = opset13.matmul(given, opset13.constant(matrix), False, False)
    found.output(0).set_names({"found"})
    model = openvino.Model([opset13.result(found)], [given])
    assert list(products(model)) == ["found"]
    whole = in_8_bits(model, {"found": (-1.0, 3.0)})
    answer = openvino.compile_model(whole, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]
    step, steps = 4.0 / 255, np.abs(matrix).max(axis=0) / 127
    seen = np.rint((np.clip(x, -1, 3) + 1) / step) * step - 1  # what is beyond the range is cut
    np.testing.assert_allclose(answer, seen @ (np.rint(matrix / steps) * steps), atol=0.05)
    assert 0.3 < np.abs(answer - x @ matrix).max() < 3
    with pytest.raises(ValueError, match="products that it does not have: other"):
        in_8_bits(model, {"other": (0.0, 1.0)})


def test_products_of_the_class_token_alone_keep_their_precision(rounded: Path) -> None:
    """Two layers: queries, keys and values, output and MLP of the first; of the last, keys and values."""
    tower = OpenVino(str(rounded)).tower
    shapes = sorted(tuple(node.input_value(1).get_node().shape) for node in products(tower).values())
    assert shapes == sorted([(64, 192), (64, 64), (64, 256), (256, 64), (64, 128)])


@pytest.mark.parametrize("levels", [None, np.array([0.3, 0.5, 0.9], np.float32)])
def test_gap(levels: NDArray[np.float32] | None) -> None:
    probabilities = np.array([[0.1, 0.7, 0.2], [0.45, 0.15, 0.4], [0.2, 0.4, 0.4]], np.float32)
    expected = [0.5, 0.05, 0.0] if levels is None else [0.2, 0.15, 0.1]
    np.testing.assert_allclose(gap(probabilities, levels), expected, atol=1e-6)


def test_one_class_is_never_a_tie() -> None:
    assert gap(np.ones((3, 1), np.float32), None).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_near_ties_are_computed_again(rounded: Path, precision: str) -> None:
    images, stored = noise(rounded, 12), Rounding.read(OnnxClassifier(rounded).metadata.rounding)
    plain = OpenVino(str(rounded), precision="fp32")
    parts = {name: plain.at(name, images)[PROBABILITIES] for name in ("fp32", "bf16", "int8")}
    assert np.abs(parts["int8"] - parts["fp32"]).max() > np.abs(parts["bf16"] - parts["fp32"]).max() > 0
    middle = float(np.median(gap(parts[precision], None)))
    engine = OpenVino(str(rounded), precision=precision, rounding=replace(stored, margins={precision: middle}))
    (found,) = engine.run([PROBABILITIES], images)
    near = gap(parts[precision], None) < middle
    assert 0 < near.sum() < len(images)
    finer = "fp32" if precision == "bf16" or not plain.has_bf16 else "bf16"
    np.testing.assert_allclose(found[~near], parts[precision][~near], atol=1e-6)
    np.testing.assert_allclose(found[near], parts[finer][near], atol=1e-3)  # in a batch of another size
    whole = OpenVino(str(rounded), precision=precision, rounding=replace(stored, margins={"bf16": 2, "int8": 2}))
    np.testing.assert_allclose(whole.run([PROBABILITIES], images)[0], parts["fp32"], atol=1e-5)


def test_a_file_without_ranges_has_no_int8(exported: Path, rounded: Path, tmp_path: Path, pictures: Path) -> None:
    assert OnnxClassifier(exported).metadata.rounding == {}  # of random images
    with pytest.raises(AdapterError, match=r"int8 needs a file with the ranges .* with --images FOLDER of 20"):
        OnnxClassifier(exported, engine="openvino", precision="int8")
    assert OnnxClassifier(rounded, engine="openvino", precision="int8").predict(str(pictures)).shape == (30,)
    good = asdict(Rounding.read(OnnxClassifier(rounded).metadata.rounding))
    name = next(iter(good["ranges"]))
    for bad in (
        {"ranges": {name: [1.0, -1.0]}},
        {"ranges": {name: [0.0, 1.0, 2.0]}},
        {"margins": {"int4": 0.1}},
        {"margins": {"bf16": "0.1"}},
        {"ranges": {name: [None, 1.0]}},
        {"ranges": [1, 2]},
        [],
    ):
        path = with_rounding(rounded, {**good, **bad} if isinstance(bad, dict) else bad, tmp_path / "bad.onnx")  # type: ignore[arg-type]
        with pytest.raises(AdapterError, match="is damaged: its metadata cannot be read") as caught:
            OnnxClassifier(path, engine="openvino")
        assert "\n" not in str(caught.value)
    newer = with_rounding(rounded, good | {"of a later version": 1}, tmp_path / "newer.onnx")
    assert OnnxClassifier(newer, engine="openvino").classes_.tolist() == ["blue_thing", "green thing", "red"]
    other = with_rounding(rounded, good | {"ranges": {"nothing": (0.0, 1.0)}}, tmp_path / "other.onnx")
    with pytest.raises(AdapterError, match="products that it does not have: nothing"):
        OnnxClassifier(other, engine="openvino", precision="int8")


def test_int8_by_the_commands(
    adapter: Path, rounded: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.csv"
    words = [str(pictures), "--out", str(out)]
    assert run(["predict", str(rounded), *words, "--engine", "openvino", "--precision", "int8"]) == 0
    assert len(out.read_text().splitlines()) == 31
    for given, said in {
        (str(rounded), "--precision", "int8"): "--precision int8 needs --engine openvino",
        (str(adapter), "--precision", "int8"): "precision int8 is for exported models",
    }.items():
        capsys.readouterr()
        assert run(["predict", given[0], str(pictures), *given[1:]]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
