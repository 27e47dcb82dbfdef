"""An exported model behind the same routes, where torch is never imported."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daptune.classifier import FewShotClassifier
from daptune.errors import AdapterError, DataError
from daptune.serve.engine import OnnxEngine
from daptune.serve.limits import Limits
from daptune.serve.server import Sources, make_engine, read_sources

from .conftest import Start, files, png


def test_a_model_is_one_adapter_without_teaching(
    start: Start, exported: Path, exact: FewShotClassifier, tmp_path: Path
) -> None:
    client = start(engine=OnnxEngine({"light": exported}), folder=None)
    (row,) = client.get("/v1/adapters").json()
    assert row["name"] == "light" and row["method"] == "onnx" and row["shared"] is False
    assert row["classes"] == exact.classes_.tolist()
    sent = [png(1), png(2, (3000, 70))]
    (tmp_path / "1.png").write_bytes(sent[0])
    (tmp_path / "2.png").write_bytes(sent[1])
    found = client.post("/v1/adapters/light/predict", files=files(*sent)).json()["predictions"]
    for each, expected in zip(found, exact.predict_proba([tmp_path / "1.png", tmp_path / "2.png"]), strict=True):
        shares = {guess["label"]: guess["probability"] for guess in each["top"]}
        assert [shares[name] for name in exact.classes_] == pytest.approx(expected.tolist(), abs=1e-5)
    known = exact.predict_known([tmp_path / "1.png", tmp_path / "2.png"])
    judged = client.post("/v1/adapters/light/predict?reject=0.4", files=files(*sent)).json()["predictions"]
    assert [each["known"] for each in judged] == [round(value, 4) for value in known.tolist()]
    assert [each["unknown"] for each in judged] == (known <= 0.4).tolist()
    assert row["known_images"] == len(exact.method_.ensemble.mix.similarity) > 0
    info = client.get("/v1/info").json()
    assert info["backbone"] is None and not info["teach"] and not info["zero_shot"]
    for answer, status in (
        (client.post("/v1/adapters/light/predict?zero_shot=true", files=files(png())), 422),
        (client.delete("/v1/adapters/light"), 409),
        (client.post("/v1/adapters", json={"name": "x"}), 409),
        (client.post("/v1/adapters/none/predict", files=files(png())), 404),
        (client.get("/v1/lessons"), 404),
    ):
        assert answer.status_code == status and answer.json()["error"]


def test_an_image_waits_in_the_queue_as_the_tower_sees_it(
    start: Start, exported: Path, exact: FewShotClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, shapes = OnnxEngine({"light": exported}), []
    run = engine.run

    def noted(served: Sequence[Any], images: Sequence[Any]) -> Any:
        shapes.extend(image.shape for image in images)
        return run(served, images)

    monkeypatch.setattr(engine, "run", noted)
    client = start(engine=engine, folder=None)
    for size in ((4000, 2100), (20, 10)):
        assert client.post("/v1/adapters/light/predict", files=files(png(0, size))).status_code == 200
    side = exact.backbone_.preprocess.size
    assert shapes == [(side, side, 3)] * 2


def test_a_file_that_is_no_export_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"")
    with pytest.raises(AdapterError, match="is not an ONNX file that can be run"):
        OnnxEngine({"x": tmp_path / "x.onnx"})


def test_openvino_serves_exported_models(exported: Path) -> None:
    pytest.importorskip("openvino")
    answered = []
    for options in ({}, {"engine": "openvino", "precision": "fp32"}):
        engine = make_engine(Sources({}, {"light": exported}, None), Limits(), **options)
        served = engine.open("light")
        side = served.preprocess.size
        images = list(np.random.default_rng(3).integers(0, 256, (3, side, side, 3), np.uint8))
        answered.append(np.stack([each.probabilities for each in engine.run([served] * 3, images)]))
        del engine, served
    np.testing.assert_allclose(answered[1], answered[0], atol=1e-3)


def test_options_that_do_not_apply_are_refused(exported: Path, exact: FewShotClassifier, tmp_path: Path) -> None:
    models = Sources({}, {"light": exported}, None)
    for option in ({"backbone": "tiny"}, {"precision": "bf16"}):
        with pytest.raises(DataError, match="leave out --backbone and --precision"):
            make_engine(models, Limits(), **option)
    with pytest.raises(AdapterError, match="use --device cpu"):
        make_engine(models, Limits(), device="cuda")
    exact.save(tmp_path / "own")
    with pytest.raises(DataError, match="--engine runs exported models; write one with `daptune export"):
        make_engine(read_sources([tmp_path / "own"]), Limits(), engine="openvino")


def test_torch_is_not_imported(exported: Path) -> None:
    script = """
import io, sys
from pathlib import Path
from PIL import Image
from starlette.testclient import TestClient
from daptune.serve.app import make_app
from daptune.serve.limits import Limits
from daptune.serve.server import make_engine, read_sources
engine = make_engine(read_sources([Path(sys.argv[1])]), Limits())
with TestClient(make_app(engine), base_url="http://localhost") as client:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9)).save(stream, "PNG")
    answer = client.post("/v1/adapters/model/predict", files={"files": ("x.png", stream.getvalue())})
    assert answer.status_code == 200 and len(answer.json()["predictions"][0]["top"]) == 3, answer.text
    assert client.get("/").status_code == 200
print(sorted({"torch", "sklearn", "safetensors", "tokenizers"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script, str(exported)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"
