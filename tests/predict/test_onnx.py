"""The exported file in use: the same answers, bad files in one line, and all of it where torch is not installed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from scipy.stats import t as student_t

import daptune
from daptune.classifier import FewShotClassifier
from daptune.cli import run
from daptune.errors import AdapterError, DataError
from daptune.export.onnx_file import export_onnx
from daptune.predict.onnx import OnnxClassifier
from daptune.predict.runtimes import KEY

WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "sklearn", "scipy", "tokenizers", "safetensors", "huggingface_hub"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
try:
    import torch
except ModuleNotFoundError:
    pass
else:
    sys.exit("torch is there")
from daptune.cli import main
main(sys.argv[1:])
"""


def test_it_answers_as_the_classifier_does(
    exact: FewShotClassifier, exported: Path, paths_and_labels: tuple[list[str], list[str]]
) -> None:
    paths = paths_and_labels[0]
    classifier = OnnxClassifier(exported, batch_size=7)
    np.testing.assert_allclose(classifier.predict_proba(paths), exact.predict_proba(paths), atol=1e-5)
    assert (classifier.predict(paths) == exact.predict(paths)).all()
    assert (classifier.classes_ == exact.classes_).all()
    picture = np.array(Image.open(paths[0]))
    np.testing.assert_allclose(classifier.predict_proba([picture]), exact.predict_proba([picture]), atol=1e-5)


def test_it_judges_as_the_classifier_does(
    exact: FewShotClassifier, exported: Path, paths_and_labels: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    """Known images as likely, and the same sets, also of pictures that are none of the classes."""
    noise = tmp_path / "noise.png"
    Image.effect_noise((40, 36), 200).convert("RGB").save(noise)
    paths, classifier = [*paths_and_labels[0], noise], OnnxClassifier(exported, batch_size=7)
    assert classifier.metadata.format_version == 2
    known, found = exact.predict_known(paths), classifier.predict_known(paths)
    assert classifier.predict_sets(paths, error=0.2) == exact.predict_sets(paths, error=0.2)
    z = torch.nn.functional.normalize(exact.method_.encode(pictures_of(exact, paths)).float(), dim=-1)
    mix, means = exact.method_.ensemble.mix, exact.method_.ensemble.prototypes
    similarity = (z @ means.mT).amax(dim=1).tolist()
    seen = np.array(mix.similarity)
    # Equal ranks, but where the rounding of float32 decides whether a similarity is below another; below all known
    # images, it reaches the tail.
    close = np.abs(np.subtract.outer(similarity, seen)).min(axis=1) < 1e-6
    assert close.sum() < 5
    np.testing.assert_allclose(found[~close], known[~close], atol=1e-5)
    np.testing.assert_allclose(found[close], known[close], atol=1 / (1 + len(seen)) + 1e-5)
    for value, share in zip(similarity, known.tolist(), strict=True):
        rank = (1 + sum(other <= value for other in seen)) / (1 + len(seen))
        score = (value - seen.mean()) / (seen.std(ddof=1) * np.sqrt(1 + 1 / len(seen)))
        assert share == pytest.approx(rank if value >= seen[0] else min(rank, student_t.cdf(score, len(seen) - 1)))
    p = exact.predict_proba(paths)
    for row, names in zip(p, exact.predict_sets(paths, error=0.2), strict=True):
        ranks = [(1 + sum(other <= share for other in mix.truth)) / (1 + len(mix.truth)) for share in row]
        first = exact.classes_[row.argmax()]
        within = {label for label, rank in zip(exact.classes_, ranks, strict=True) if rank > 0.2} | {first}
        assert set(names) == within and names[0] == first


def pictures_of(classifier: FewShotClassifier, paths: list[Any]) -> torch.Tensor:
    return torch.stack([classifier.preprocess(Image.open(path).convert("RGB")) for path in paths])


def test_a_file_of_format_1_is_read_and_does_not_judge(
    adapter: Path, tmp_path: Path, paths_and_labels: tuple[list[str], list[str]]
) -> None:
    """As the first version wrote it: two outputs, and metadata without statistics of known images."""
    plain = daptune.load(adapter, precision="fp32")
    plain.method_.ensemble = None
    path = export_onnx(plain, tmp_path / "new.onnx").path
    content = json.loads(OnnxClassifier(path).metadata.to_json())
    assert content["format_version"] == 1
    for name in ("similarity", "truth"):
        del content[name]
    old = OnnxClassifier(changed(path, tmp_path / "old.onnx", json.dumps(content)))
    paths = paths_and_labels[0][:5]
    np.testing.assert_allclose(old.predict_proba(paths), plain.predict_proba(paths), atol=1e-5)
    for judge in (old.predict_known, old.predict_sets, plain.predict_known, plain.predict_sets):
        with pytest.raises(DataError, match="with --ensemble auto and two or more images of a class") as caught:
            judge(paths)
        assert "\n" not in str(caught.value)


def test_pixels_are_those_of_torch(exact: FewShotClassifier) -> None:
    preprocess = exact.backbone_.preprocess
    image = Image.effect_noise((50, 37), 80).convert("RGB")
    assert (preprocess(image).numpy() == preprocess.array(image)).all()


def test_damaged_images_stop_nothing(exported: Path, paths_and_labels: tuple[list[str], list[str]]) -> None:
    classifier = OnnxClassifier(exported, batch_size=2)
    sources = [b"no image", Path(paths_and_labels[0][0]), b"", b"neither"]
    batches = list(classifier.stream(sources))
    assert [len(batch.failed) for batch, _ in batches] == [1, 2] and batches[0][0].indices == (1,)
    assert [found.probabilities.shape for _, found in batches] == [(1, 3), (0, 3)]
    with pytest.raises(DataError, match="not an image"):
        classifier.predict(sources)
    with pytest.raises(DataError, match="found none"):
        classifier.predict([])


def changed(exported: Path, target: Path, value: str | None) -> Path:
    """The file with other metadata."""
    model = onnx.load(exported)
    del model.metadata_props[:]
    if value is not None:
        model.metadata_props.add(key=KEY, value=value)
    target.write_bytes(model.SerializeToString())
    return target


def test_files_that_are_no_export(exported: Path, tmp_path: Path) -> None:
    stored = OnnxClassifier(exported).metadata
    content = json.loads(stored.to_json())
    other = tmp_path / "other.onnx"
    other.write_bytes(b"no model")
    for bad, words in {
        tmp_path / "none.onnx": "no file at",
        other: "is not an ONNX file that can be run",
        changed(exported, tmp_path / "a.onnx", None): "not one that `daptune export` wrote",
        changed(exported, tmp_path / "b.onnx", "{"): "metadata cannot be read",
        changed(exported, tmp_path / "c.onnx", "[]"): "metadata cannot be read",
        changed(exported, tmp_path / "d.onnx", json.dumps(content | {"format_version": 9})): "newer daptune",
        changed(exported, tmp_path / "e.onnx", json.dumps(content | {"class_names": []})): "metadata cannot be read",
        changed(exported, tmp_path / "f.onnx", json.dumps(content | {"class_names": ["a", "b"]})): "does not match",
        changed(exported, tmp_path / "g.onnx", json.dumps(content | {"preprocess": {"size": 0}})): "metadata cannot",
        changed(exported, tmp_path / "h.onnx", json.dumps(content | {"similarity": []})): "metadata cannot",
        changed(exported, tmp_path / "p.onnx", json.dumps(content | {"similarity": [], "truth": []})): "does not match",
        changed(exported, tmp_path / "i.onnx", json.dumps(content | {"similarity": ["a"]})): "metadata cannot",
        changed(exported, tmp_path / "j.onnx", json.dumps(content | {"similarity": 0.5})): "metadata cannot",
        changed(exported, tmp_path / "k.onnx", json.dumps(content | {"similarity": [0.5, 2.0]})): "metadata cannot",
        changed(exported, tmp_path / "l.onnx", json.dumps(content | {"similarity": [0.5, 0.1]})): "metadata cannot",
        changed(exported, tmp_path / "m.onnx", json.dumps(content | {"truth": []})): "metadata cannot",
        changed(exported, tmp_path / "n.onnx", json.dumps(content | {"truth": [float("nan")]})): "metadata cannot",
        changed(exported, tmp_path / "o.onnx", json.dumps(content | {"truth": [-0.1]})): "metadata cannot",
    }.items():
        with pytest.raises(AdapterError, match=words) as caught:
            OnnxClassifier(bad)
        assert "\n" not in str(caught.value)
    with pytest.raises(AdapterError, match="cannot run on 'tpu'"):
        OnnxClassifier(exported, device="tpu")
    with pytest.raises(DataError, match="batch size of 1 or more"):
        OnnxClassifier(exported, batch_size=0)


def test_integer_labels_come_back(
    exported: Path, tmp_path: Path, paths_and_labels: tuple[list[str], list[str]]
) -> None:
    content = json.loads(OnnxClassifier(exported).metadata.to_json())
    found = OnnxClassifier(changed(exported, tmp_path / "m.onnx", json.dumps(content | {"labels": [7, 8, 9]})))
    names = OnnxClassifier(exported).predict(paths_and_labels[0]).tolist()
    order = content["class_names"]
    assert found.predict(paths_and_labels[0]).tolist() == [7 + order.index(name) for name in names]


def test_predict_runs_where_torch_is_not_installed(
    exact: FewShotClassifier, exported: Path, adapter: Path, pictures: Path, tmp_path: Path
) -> None:
    script = tmp_path / "without.py"
    script.write_text(WITHOUT_TORCH)
    source = Path(daptune.__file__).parent.parent

    def predict(model: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(script), "predict", str(model), str(pictures), "--top-k", "3"],
            env=os.environ | {"PYTHONPATH": str(source)}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = predict(exported)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 30
    expected = exact.predict_proba([row["file"] for row in rows])
    for row, probabilities in zip(rows, expected, strict=True):
        assert row["label"] == exact.classes_[probabilities.argmax()]
        assert [item["probability"] for item in row["top"]] == pytest.approx(sorted(probabilities)[::-1], abs=1e-5)
    refused = predict(adapter)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "is not installed; only exported .onnx files work without it: pip install daptune" in refused.stderr


def test_what_an_onnx_file_cannot_take_is_said(
    exported: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", str(exported), str(pictures), "--precision", "bf16"]) == 2
    assert "leave out --backbone and --precision" in capsys.readouterr().err
    assert run(["predict", str(exported), str(pictures), "--batch-size", "0"]) == 2
    assert "batch size of 1 or more" in capsys.readouterr().err
