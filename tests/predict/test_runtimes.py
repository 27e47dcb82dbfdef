"""OpenVINO beside onnxruntime: the same answers, and the same lines for what cannot be run."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from daptune.classifier import FewShotClassifier
from daptune.cli import run
from daptune.errors import AdapterError, DataError
from daptune.export.onnx_file import export_onnx
from daptune.predict.onnx import OnnxClassifier
from daptune.predict.runtimes import KEY

pytest.importorskip("openvino")


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8"])
def test_openvino_answers_as_onnxruntime_does(
    exact: FewShotClassifier, paths_and_labels: tuple[list[str], list[str]], dtype: str, tmp_path: Path
) -> None:
    path = export_onnx(exact, tmp_path / "model.onnx", dtype=dtype).path
    asked = OnnxClassifier(path, batch_size=7)
    found = OnnxClassifier(path, batch_size=7, engine="openvino", precision="fp32")
    assert found.batch_size == 7 and OnnxClassifier(path).batch_size == 16  # on the processor
    sources = paths_and_labels[0]
    atol = {"fp32": 1e-5, "fp16": 1e-3, "int8": 0.02}[dtype]  # onnxruntime multiplies the rounded numbers in other ways
    np.testing.assert_allclose(found.predict_proba(sources), asked.predict_proba(sources), atol=atol)
    assert found.metadata == asked.metadata
    if dtype == "fp32":
        assert found.predict(sources).tolist() == asked.predict(sources).tolist()
        np.testing.assert_allclose(found.predict_known(sources), asked.predict_known(sources), atol=0.05)
        assert found.predict_sets(sources, error=0.2) == asked.predict_sets(sources, error=0.2)


def test_bfloat16_rounds_and_threads_share_nothing(exported: Path) -> None:
    exact = OnnxClassifier(exported)
    side = exact.preprocess.size
    images = np.random.default_rng(3).standard_normal((8, 3, side, side)).astype(np.float32)
    rounded = OnnxClassifier(exported, engine="openvino", precision="bf16")
    whole, first = rounded.probabilities(images), rounded.probabilities(images[:1])
    assert np.abs(whole - exact.probabilities(images)).max() < 0.05
    kept = first.copy()
    with ThreadPoolExecutor(4) as pool:
        each = list(pool.map(lambda place: rounded.probabilities(images[place : place + 1]), range(8)))
    np.testing.assert_allclose(np.concatenate(each), whole, atol=0.02)
    assert (first == kept).all()  # and an answer is no memory that the next one is written to


def test_what_openvino_does_not_run_is_one_line(exported: Path, tmp_path: Path) -> None:
    other, foreign = tmp_path / "other.onnx", tmp_path / "foreign.onnx"
    other.write_bytes(b"no model")
    model = onnx.load(exported)
    del model.metadata_props[:]
    foreign.write_bytes(model.SerializeToString())
    damaged = tmp_path / "damaged.onnx"
    model.metadata_props.add(key=KEY, value="{")
    damaged.write_bytes(model.SerializeToString())
    for path, words in {
        tmp_path / "none.onnx": "no file at",
        other: "is not an ONNX file that can be run",
        foreign: "not one that `daptune export` wrote",
        damaged: "metadata cannot be read",
    }.items():
        with pytest.raises(AdapterError, match=words) as caught:
            OnnxClassifier(path, engine="openvino")
        assert "\n" not in str(caught.value) and ".cpp" not in str(caught.value)
    older = tmp_path / "older.onnx"
    content = json.loads(OnnxClassifier(exported).metadata.to_json())
    del model.metadata_props[:], content["tower_ends"]
    model.metadata_props.add(key=KEY, value=json.dumps(content))
    older.write_bytes(model.SerializeToString())
    side = content["preprocess"]["size"]
    image = np.random.default_rng(4).standard_normal((1, 3, side, side)).astype(np.float32)
    np.testing.assert_allclose(
        OnnxClassifier(older, engine="openvino").logits(image), OnnxClassifier(older).logits(image), atol=1e-4
    )
    with pytest.raises(AdapterError, match="bf16 needs a file that says where its image tower ends"):
        OnnxClassifier(older, engine="openvino", precision="bf16")
    with pytest.raises(AdapterError, match="use --device cpu"):
        OnnxClassifier(exported, engine="openvino", device="cuda")
    with pytest.raises(DataError, match="onnxruntime, openvino, found 'tvm'"):
        OnnxClassifier(exported, engine="tvm")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="found 'bf16' of onnxruntime"):
        OnnxClassifier(exported, precision="bf16")


def test_options_of_the_command(
    exported: Path, adapter: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.csv"
    words = ["predict", str(exported), str(pictures), "--out", str(out)]
    assert run(words) == 0
    plain = out.read_text().splitlines()
    out.unlink()
    assert run([*words, "--engine", "openvino", "--precision", "fp32"]) == 0
    assert [row.split(",")[:2] for row in out.read_text().splitlines()] == [row.split(",")[:2] for row in plain]
    capsys.readouterr()
    for given, said in {
        (str(exported), "--precision", "fp32"): "leave out --backbone and --precision",
        (str(exported), "--engine", "openvino", "--precision", "fp16-faithful"): "computes in fp32, bf16 or int8",
        (str(exported), "--engine", "openvino", "--backbone", "tiny"): "leave out --backbone",
        (str(adapter), "--engine", "openvino"): "--engine runs exported models; write one with `daptune export",
    }.items():
        assert run(["predict", given[0], str(pictures), *given[1:]]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
