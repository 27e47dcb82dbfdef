"""Files that version 0.1.0 wrote are read as they were, and give the same numbers.

`data/dapt` and `data/tip_adapter` are adapters of that version, `data/run` a run that was interrupted after two of four
epochs; the JSON files beside them hold what that version predicted for `SEEN`, the last from the run in one piece.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import daptune
from daptune.adapter.record import read_record
from daptune.classifier import FewShotClassifier

DATA = Path(__file__).with_name("data")


def picture(red: int, green: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    noise = np.random.default_rng(seed).integers(0, 60, (32, 40, 3))
    return (noise + np.array([red, green, 90])).clip(0, 255).astype(np.uint8)


IMAGES = [picture(190, 20, seed) for seed in range(6)] + [picture(20, 190, seed) for seed in range(6, 12)]
LABELS = ["red_ball"] * 6 + ["green leaf"] * 6
SEEN = [picture(150, 60, 100), picture(60, 150, 101), picture(100, 100, 102)]


def expected(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("method", ["dapt", "tip_adapter"])
def test_an_adapter_predicts_the_same(method: str) -> None:
    classifier = daptune.load(DATA / method)
    assert classifier.record_.method == method
    assert classifier.classes_.tolist() == expected(method)["classes"]
    np.testing.assert_allclose(classifier.predict_proba(SEEN), expected(method)["probabilities"], rtol=0, atol=1e-4)


def test_the_record_is_whole() -> None:
    record = read_record(DATA / "dapt")
    assert record.train_config["epochs"] == 2 and record.train_config["min_crop"] == 0.5
    assert record.data == {"fingerprint": record.data["fingerprint"], "images": 12}
    assert json.loads(record.to_json()) == json.loads((DATA / "dapt" / "adapter.json").read_text("utf-8"))


def test_a_classifier_of_the_same_settings() -> None:
    """That version drew images in whole passes, had no ensemble and set no temperature."""
    settings = read_record(DATA / "dapt").settings
    training = settings.pop("train_options")
    assert (training["sampling"], training["epoch_shots"], training["epochs"]) == ("shuffled", None, 2)
    options = settings.pop("method_options")
    assert (options["text_tokens"], options["vision_tokens"]) == (2, 2)
    assert settings == {
        "method": "dapt", "backbone": "tiny", "shots": 16, "seed": 1, "ensemble": "none", "templates": (),
        "class_weight": None, "calibrate": "none", "multi_label": False,
    }  # fmt: skip
    assert read_record(DATA / "tip_adapter").settings["train_options"] is None


def test_a_run_goes_on(tmp_path: Path) -> None:
    run = Path(shutil.copytree(DATA / "run", tmp_path / "run"))
    classifier = FewShotClassifier(
        "dapt",
        "tiny",
        precision="fp32",
        ensemble="none",
        method_options={"text_tokens": 2, "vision_tokens": 2},
        train_options={"epochs": 4, "checkpoint_seconds": 0.0, "lr": 0.01},
    )
    steps: list[int] = []
    classifier.fit(IMAGES, LABELS, run_dir=run, resume=True, progress=lambda now: steps.append(now.epoch))
    assert steps[0] == 3
    np.testing.assert_allclose(classifier.predict_proba(SEEN), expected("run")["probabilities"], rtol=0, atol=2e-3)
