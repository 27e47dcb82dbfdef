"""An adapter predicts the same with scikit-learn and without."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import daptune
from daptune.predict.adapted import AdapterPredictor

from ..conftest import scores_by_hand


def predictor(folder: Path, **options: str) -> AdapterPredictor:
    return AdapterPredictor().hold(daptune.load_adapter(folder, **options))


def test_it_answers_as_the_formulas_and_the_classifier_do(adapter: Path, pictures: Path) -> None:
    paths = sorted(pictures.rglob("*.png"))[::7]
    found, beside = predictor(adapter, precision="fp32"), daptune.load(adapter, precision="fp32")
    assert found.classes_.tolist() == beside.classes_.tolist() and found.truth == beside.truth
    probabilities = found.predict_proba(paths)
    np.testing.assert_array_equal(probabilities, beside.predict_proba(paths))
    np.testing.assert_array_equal(found.predict_known(paths), beside.predict_known(paths))
    images = torch.stack([beside.preprocess(Image.open(path)) for path in paths])
    powers = np.exp(scores_by_hand(found.method_, images) / found.record_.temperature)
    np.testing.assert_allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-5)


def test_labels_that_are_integers_stay_so(fitted, tmp_path: Path, pictures: Path) -> None:  # type: ignore[no-untyped-def]
    paths = sorted(pictures.rglob("*.png"))
    labels = [{"blue_thing": 7, "green thing": 3, "red": 11}[path.parent.name] for path in paths]
    folder = (
        daptune.FewShotClassifier("prototype", fitted.backbone_, class_names={3: "leaf", 7: "sky", 11: "fire"})
        .fit(paths, labels)
        .save(tmp_path / "numbered")
    )
    assert predictor(folder).predict(paths[:2]).tolist() == [7, 7]
