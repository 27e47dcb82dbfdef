"""The class weights alone: what they are, and what is said where they are not the whole."""

import copy
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from daptune.classifier import FewShotClassifier
from daptune.cli import run
from daptune.errors import DataError, MethodError
from daptune.export.weights import export_weights


def fit(method: str, backbone: str, images: tuple[list[str], list[str]], **options: object) -> FewShotClassifier:
    classifier = FewShotClassifier(
        method, backbone, shots=2, method_options=options, train_options={"epochs": 1, "batch_size": 6},
        precision="fp32", ensemble="none",
    )  # fmt: skip
    return classifier.fit(*images)


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_they_classify_plain_clip_features(
    made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]], tmp_path: Path, temperature: float
) -> None:
    classifier = fit("coop", made_up_backbone, paths_and_labels, text_tokens=2)
    classifier.record_ = replace(classifier.record_, temperature=temperature)
    done = export_weights(classifier, tmp_path / "weights.npy")
    weights = np.load(done.paths[0], allow_pickle=False)
    assert weights.shape == done.shape == (3, 32) and weights.dtype == np.float32 and done.warning is None
    clip, preprocess = classifier.backbone_.clip, classifier.backbone_.preprocess
    image = torch.randn(5, 3, preprocess.size, preprocess.size)
    with torch.no_grad():
        z = F.normalize(clip.encode_image(image), dim=-1)
        expected = (classifier.method_.logits(image) / temperature).softmax(-1)
        found = (z @ torch.from_numpy(weights).T).softmax(-1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), done.scale, rtol=1e-5)
    assert done.scale == pytest.approx(np.exp(clip.logit_scale.item()) / temperature)
    head, *rows = csv.reader(done.paths[1].read_text("utf-8").splitlines())
    assert head[:2] == ["class", "d0"] and [row[0] for row in rows] == list(classifier.method_.class_names)
    assert (np.array([row[1:] for row in rows], np.float32) == weights).all()


def test_a_learned_projection_is_written_beside_them(
    made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    """In the CLIP with it in place of its own, the weights give the adapter's probabilities."""
    classifier = fit("prolip", made_up_backbone, paths_and_labels)
    torch.nn.init.normal_(classifier.method_.residual, generator=torch.Generator().manual_seed(0))
    done = export_weights(classifier, tmp_path / "weights.npy")
    assert [path.name for path in done.paths] == ["weights.npy", "weights.csv", "weights-projection.npy"]
    assert done.warning is None
    clip, preprocess = copy.deepcopy(classifier.backbone_.clip), classifier.backbone_.preprocess
    image = torch.randn(5, 3, preprocess.size, preprocess.size)
    with torch.no_grad():
        expected = classifier.method_.logits(image).softmax(-1)
        clip.visual.proj.copy_(torch.from_numpy(np.load(done.paths[2], allow_pickle=False)))
        z = F.normalize(clip.encode_image(image), dim=-1)
        found = (z @ torch.from_numpy(np.load(done.paths[0])).T).softmax(-1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_where_they_are_half_of_it(
    exact: FewShotClassifier, made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    prompts = copy.copy(exact)
    prompts.method_ = copy.deepcopy(exact.method_)  # a shallow copy shares its modules
    prompts.method_.ensemble = None
    assert "only the text half" in str(export_weights(prompts, tmp_path / "a.npy").warning)
    warning = export_weights(exact, tmp_path / "a.npy").warning
    assert warning is not None and warning.startswith(
        "these are the learned prompts' weights: the adapter also answers"
    )
    assert "--ensemble none" in warning and "--to onnx" in warning and "\n" not in warning
    tip = fit("tip_adapter", made_up_backbone, paths_and_labels, views=0)
    assert "has more than class weights" in str(export_weights(tip, tmp_path / "b.npy").warning)
    probe = fit("linear_probe", made_up_backbone, paths_and_labels)
    with pytest.raises(MethodError, match="linear_probe has no text features"):
        export_weights(probe, tmp_path / "c.npy")
    with pytest.raises(DataError, match=r"ends in \.npy"):
        export_weights(exact, tmp_path / "weights.csv")


def test_the_command(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(adapter), "--to", "text-weights", "--out", str(tmp_path / "w.npy")]
    assert run(words) == 0
    shown = capsys.readouterr()
    assert "3 classes x 32" in shown.out and "fit with --ensemble none" in shown.err
    assert run([*words, "--dtype", "int8"]) == 2
    assert "--dtype and --images belong to --to onnx" in capsys.readouterr().err
