"""What an export measures for OpenVINO: ranges beside torch's, and shares beside onnxruntime's answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from daptune.classifier import FewShotClassifier
from daptune.cli import run
from daptune.data.images import decode
from daptune.export import rounding
from daptune.export.onnx_file import export_onnx
from daptune.export.rounding import DEVIATIONS, LEAST, deviations, measured
from daptune.predict.exported import PROBABILITIES
from daptune.predict.onnx import OnnxClassifier
from daptune.predict.openvino import OpenVino, products

pytest.importorskip("openvino")


def test_ranges_are_those_of_torch_and_shares_those_of_onnxruntime(
    exact: FewShotClassifier, paths_and_labels: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    sources, clip = sorted(paths_and_labels[0])[:29], exact.method_.clip
    path = export_onnx(exact, tmp_path / "model.onnx").path
    found = measured(path.read_bytes(), sources, exact.backbone_.preprocess, None)
    ours, others = sources[::2], sources[1::2]
    pixels = {
        name: np.stack([exact.backbone_.preprocess.array(decode(each)) for each in part])
        for name, part in (("ours", ours), ("others", others))
    }
    seen: list[torch.Tensor] = []
    tower: Any = clip.visual
    handle = tower.transformer.resblocks[0].attn.out_proj.register_forward_hook(
        lambda module, given, result: seen.append(given[0])
    )
    with torch.no_grad():
        exact.method_.encode(torch.from_numpy(pixels["ours"]))
    handle.remove()
    engine = OpenVino(str(path), precision="fp32")
    width = clip.config.vision_width
    (name,) = (n for n, p in products(engine.tower).items() if tuple(p.input_value(1).get_node().shape) == (width,) * 2)
    np.testing.assert_allclose(
        found.ranges[name], (float(min(x.min() for x in seen)), float(max(x.max() for x in seen))), atol=1e-4
    )
    sure = OnnxClassifier(path).probabilities(pixels["others"]).argmax(axis=1)
    for precision, margin in found.margins.items():
        both = [
            OpenVino(str(path), precision=precision, rounding=found).at(p, pixels["ours"]) for p in (precision, "fp32")
        ]
        rough, fine = (each[PROBABILITIES] for each in both)
        order = rough.argsort(axis=1)[:, -2:]
        rows = np.arange(len(rough))
        moved = [(p[rows, order[:, 1]] - p[rows, order[:, 0]]).astype(float) for p in (rough, fine)]
        assert margin == pytest.approx(DEVIATIONS * np.sqrt(np.mean((moved[0] - moved[1]) ** 2)), rel=0.05)
        answers = OpenVino(str(path), precision=precision, rounding=found).run([PROBABILITIES], pixels["others"])[0]
        assert found.same[precision] == (answers.argmax(axis=1) == sure).mean()
    assert found.images == 14 and set(found.margins) >= {"int8"}


@pytest.mark.parametrize("levels", [None, np.array([0.2, 0.5, 0.6], np.float32)])
def test_what_rounding_moves(levels: NDArray[np.float32] | None) -> None:
    sure = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], np.float32)
    found = np.array([[0.2, 0.38, 0.42], [0.15, 0.1, 0.75]], np.float32)
    expected = [0.12 + 0.12, -0.05 - 0.05] if levels is None else [0, -0.12, 0.12, 0.05, 0, -0.05]
    np.testing.assert_allclose(deviations(sure, found, levels), expected, atol=1e-6)


def test_one_class_moves_nothing() -> None:
    assert deviations(np.ones((2, 1), np.float32), np.ones((2, 1), np.float32), None).tolist() == [0.0, 0.0]


def test_too_few_images_say_nothing(
    adapter: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for place, path in enumerate(sorted(pictures.rglob("*.png"))[: LEAST - 1]):
        path.rename(few / f"{place}.png")
    words = ["export", str(adapter), "--out", str(tmp_path / "m.onnx"), "--json", "--images"]
    assert run([*words, str(few)]) == 0
    assert json.loads(capsys.readouterr().out)["openvino"]["margins"] == {}
    (few / "last.png").write_bytes((few / "0.png").read_bytes())
    assert run([*words, str(few)]) == 0
    said = json.loads(capsys.readouterr().out)["openvino"]
    assert said["images"] == 10 and 0 <= said["same"]["int8"] <= 1 and said["margins"]["int8"] > 0
    monkeypatch.setattr(rounding, "find_spec", lambda name: None)
    assert run([*words, str(few)]) == 0
    assert json.loads(capsys.readouterr().out)["openvino"]["margins"] == {}
