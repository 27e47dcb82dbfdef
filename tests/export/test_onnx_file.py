"""The file: what it says of itself, its three precisions, and what may go wrong before it is written."""

import copy
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import daptune
from daptune.classifier import FewShotClassifier
from daptune.cli import run
from daptune.errors import DataError
from daptune.export import onnx_file
from daptune.export.agreement import Agreement, images_for, made_up, measure
from daptune.export.int8 import to_int8, tower_products
from daptune.export.onnx_file import Exported, export_onnx
from daptune.predict.onnx import OnnxClassifier

from ..conftest import scores_by_hand


def test_the_metadata_tells_all_that_is_needed(exact: FewShotClassifier, exported: Path) -> None:
    onnx.checker.check_model(exported)
    said = OnnxClassifier(exported).metadata
    assert said.class_names == tuple(exact.method_.class_names) and said.labels is None
    assert said.preprocess == exact.backbone_.preprocess.to_dict()
    assert (said.method, said.dtype, said.channels, said.temperature) == ("coop_vpt", "fp32", "RGB", 1.0)
    assert said.backbone["sha256"] == exact.backbone_.sha256
    assert said.agreement["top1"] == 1.0 and said.agreement["images"] == 100
    assert said.agreement["max_logit_difference"] < 1e-4


def test_the_temperature_is_in_the_file(exact: FewShotClassifier, tmp_path: Path) -> None:
    """The answers of the file are softmax(logits / 3.5), written out in numpy from torch's scores."""
    classifier = copy.copy(exact)
    classifier.record_ = replace(exact.record_, temperature=3.5)
    done = export_onnx(classifier, tmp_path / "model.onnx")
    model = OnnxClassifier(done.path)
    assert model.metadata.temperature == 3.5
    size = exact.backbone_.preprocess.size
    images = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(0))
    powers = np.exp(scores_by_hand(exact.method_, images) / 3.5)
    np.testing.assert_allclose(
        model.probabilities(images.numpy()), powers / powers.sum(axis=1, keepdims=True), atol=1e-4
    )
    np.testing.assert_allclose(np.exp(model.logits(images.numpy()).astype(float) / 3.5), powers, rtol=1e-3)


def test_int8_is_smaller_and_agrees(exact: FewShotClassifier, exported: Path, tmp_path: Path) -> None:
    whole = onnx.load(exported)
    products = tower_products(whole, "clip.visual.ln_post.weight")
    assert len(products) == 9  # in two layers: queries, keys and values (apart in the last), output, two of the MLP
    small = to_int8(onnx.load(exported), "clip.visual.ln_post.weight")
    assert [node.op_type for node in small.graph.node].count("MatMulNBits") == len(products)
    sizes = {each.name: 4 * np.prod(each.dims) for each in whole.graph.initializer}
    matrices = sum(sizes[node.input[1]] for node in products)
    assert whole.ByteSize() - small.ByteSize() > 0.65 * matrices  # three of four bytes, and back one of 32 for scales
    del small.metadata_props[:]
    small.metadata_props.add(key="daptune", value=next(p.value for p in whole.metadata_props if p.key == "daptune"))
    found = measure(exact, OnnxClassifier(small.SerializeToString()), made_up(36), "made up")
    assert 0 < found.max_logit_difference < 0.2 and found.top1 >= 0.97


def test_fp16_is_smaller_and_agrees_by_the_command(
    adapter: Path, exported: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "half.onnx"
    words = ["export", str(adapter), "--dtype", "fp16", "--out", str(out), "--images", str(pictures), "--json"]
    assert run(words) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["agreement"]["images"] == 30 and done["agreement"]["source"] == "images of pictures"
    assert 0 < done["agreement"]["max_logit_difference"] < 0.1
    assert "QuickGELU" in done["warning"] and done["warnings"] == [done["warning"]]  # what stderr says, and no more
    assert done["bytes"] == out.stat().st_size < 0.75 * exported.stat().st_size
    assert OnnxClassifier(out).metadata.dtype == "fp16"


def test_too_little_agreement_is_a_warning(tmp_path: Path) -> None:
    def warning(dtype: str, top1: float) -> str | None:
        return Exported(tmp_path, 1, dtype, Agreement(1000, "images", 0.1, top1)).warning

    assert warning("fp32", 0.999) is None and warning("int8", 0.99) is None
    said = "the file predicts the same class as torch for 99.8 % of the images, below the target of 99.9 %"
    assert warning("fp32", 0.998) == said
    assert "below the target of 99 %; --dtype fp32 agrees best" in str(warning("int8", 0.98))


def test_agreement_is_measured_and_not_assumed(exact: FewShotClassifier, exported: Path) -> None:
    class Another(OnnxClassifier):
        def logits(self, images):  # type: ignore[no-untyped-def]
            return super().logits(images)[:, ::-1]

    images = made_up(40)
    found = measure(exact, OnnxClassifier(exported), [*images, b"no image"], "made up")
    assert found.images == 40 and found.top1 == 1.0
    assert measure(exact, Another(exported), images, "made up").top1 < 0.9
    with pytest.raises(DataError, match="none of the 1 images can be read"):
        measure(exact, OnnxClassifier(exported), [b"no image"], "made up")


def test_which_images_it_is_measured_on(exact: FewShotClassifier, pictures: Path, tmp_path: Path) -> None:
    own, called = images_for(exact, pictures)
    assert len(own) == 30 and called == "images of pictures"
    assert images_for(exact, None)[1].startswith("random images")
    with pytest.raises(DataError, match="no image files in"):
        images_for(exact, tmp_path / "nothing")


@pytest.mark.parametrize(
    ("out", "words"),
    [("model.bin", r"ends in \.onnx"), ("folder.onnx", "is a folder"), ("no/model.onnx", "is not a folder")],
)
def test_a_bad_place_is_told_before_the_work(
    exact: FewShotClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, words: str
) -> None:
    monkeypatch.setattr(onnx_file, "trace", None)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(DataError, match=words):
        export_onnx(exact, tmp_path / out)
    monkeypatch.setattr(exact.backbone_, "precision", "bf16")
    with pytest.raises(DataError, match="expected a backbone in fp32, found bf16"):
        export_onnx(exact, tmp_path / "model.onnx")
    with pytest.raises(DataError, match="dtype must be one of fp32, fp16, int8"):
        export_onnx(exact, tmp_path / "model.onnx", dtype="int4")


def test_names_of_prompts_are_in_the_weights_and_labels_in_answers(exact: FewShotClassifier, tmp_path: Path) -> None:
    named = exact.with_classes({"1": ["red", "tomato"], "2": "cat"})
    model = OnnxClassifier(export_onnx(named, tmp_path / "model.onnx").path)
    assert model.metadata.class_names == ("1", "2")
    size = named.backbone_.preprocess.size
    images = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = named.method_.answer(images).softmax(-1).numpy()
    np.testing.assert_allclose(model.probabilities(images.numpy()), expected, atol=1e-5)


def test_it_is_compared_with_the_precision_of_predict_too(
    adapter: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An adapter that predicts in bf16: both shares are measured, printed and in the file."""
    place = shutil.copytree(adapter, tmp_path / "bf16")
    record = json.loads((place / "adapter.json").read_text())
    record["backbone"]["precision"] = "bf16"
    (place / "adapter.json").write_text(json.dumps(record))
    files = sorted(pictures.rglob("*.png"))
    exported = classifier_of(place, tmp_path / "m.onnx", pictures, capsys)
    mine = daptune.load(place, precision="bf16")
    same = np.mean(mine.predict(files) == exported.predict(files))
    agreement = exported.metadata.agreement
    assert agreement["predict_precision"] == "bf16" and agreement["predict_top1"] == pytest.approx(same)
    plain = classifier_of(
        adapter, tmp_path / "plain.onnx", pictures, capsys, ["--backbone", record["backbone"]["name"]]
    )
    own = json.loads((adapter / "adapter.json").read_text())["backbone"]["precision"]
    assert (plain.metadata.agreement["predict_top1"] is None) == (own == "fp32")


def classifier_of(
    adapter: Path, out: Path, pictures: Path, capsys: pytest.CaptureFixture[str], more: Sequence[str] = ()
) -> OnnxClassifier:
    """An adapter exported by the command."""
    assert run(["export", str(adapter), "--out", str(out), "--images", str(pictures), *more]) == 0
    assert "same class as torch" in capsys.readouterr().out
    return OnnxClassifier(out)
