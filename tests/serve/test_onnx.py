"""An exported model behind the same routes, where torch is never imported."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from daptune.serve.onnx import OnnxEngine

from .conftest import Start, files, png


class Brightness:
    """Stands for `daptune.export.runtime.OnnxClassifier`: bright or dark."""

    classes_ = ("bright", "dark")

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def predict_proba(self, images: list[Image.Image]) -> Any:
        self.seen += [image.size for image in images]
        bright = np.array([np.asarray(image).mean() / 255 for image in images], np.float32)
        return np.stack([bright, 1 - bright], 1)


def test_a_model_is_one_adapter_without_teaching(start: Start) -> None:
    model = Brightness()
    client = start(engine=OnnxEngine({"light": Path("light.onnx")}, lambda path: model), folder=None)
    (row,) = client.get("/v1/adapters").json()
    assert row["name"] == "light" and row["method"] == "onnx" and row["shared"] is False
    (found,) = client.post("/v1/adapters/light/predict", files=files(png())).json()["predictions"]
    assert {guess["label"] for guess in found["top"]} == {"bright", "dark"} and model.seen == [(40, 36)]
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


def test_an_image_waits_in_the_queue_no_larger_than_needed() -> None:
    engine = OnnxEngine({"light": Path("light.onnx")}, lambda path: Brightness())
    for size, expected in (((4000, 2100), (2000, 1050)), ((2000, 1000), (2000, 1000))):
        stream = io.BytesIO()
        Image.new("L", size).save(stream, "PNG")
        assert engine.prepare(stream.getvalue(), 10**8).size == expected


def test_torch_is_not_imported(tmp_path: Path) -> None:
    script = """
import sys, types
class Fake:
    classes_ = ["a", "b"]
    def __init__(self, path): self.path = path
    def predict_proba(self, images):
        import numpy as np
        return np.full((len(images), 2), 0.5, np.float32)
for name in ("daptune.export", "daptune.export.runtime"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["daptune.export.runtime"].OnnxClassifier = Fake
from pathlib import Path
from starlette.testclient import TestClient
from daptune.serve.app import make_app
from daptune.serve.limits import Limits
from daptune.serve.run import make_engine, read_sources
engine = make_engine(read_sources([Path(sys.argv[1])]), Limits())
with TestClient(make_app(engine), base_url="http://localhost") as client:
    import io
    from PIL import Image
    stream = io.BytesIO()
    Image.new("RGB", (9, 9)).save(stream, "PNG")
    answer = client.post("/v1/adapters/model/predict", files={"files": ("x.png", stream.getvalue())})
    assert answer.status_code == 200 and len(answer.json()["predictions"][0]["top"]) == 2, answer.text
    assert client.get("/").status_code == 200
print(sorted({"torch", "sklearn", "safetensors", "tokenizers"} & set(sys.modules)))
"""
    model = tmp_path / "model.onnx"
    model.write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", script, str(model)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"
