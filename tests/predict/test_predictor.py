"""What the torch and the ONNX classifier share: names stay with their images, whatever computes the answers."""

from pathlib import Path

import numpy as np
import pytest

from daptune.classifier import FewShotClassifier
from daptune.data.stream import Item
from daptune.errors import DataError
from daptune.predict.onnx import OnnxClassifier
from daptune.predict.predictor import Predictor


@pytest.fixture(params=["torch", "onnx"])
def predictor(request: pytest.FixtureRequest, exact: FewShotClassifier, exported: Path) -> Predictor:
    return exact if request.param == "torch" else OnnxClassifier(exported)


def test_a_name_stays_with_its_image(predictor: Predictor, paths_and_labels: tuple[list[str], list[str]]) -> None:
    first, second = (Path(path) for path in paths_and_labels[0][:2])
    sources = [Item("one", first), Item("none", b"no image"), second, Item("two", second.read_bytes())]
    ((batch, found),) = predictor.stream(sources)
    assert batch.names == ("one", "", "two") and batch.indices == (0, 2, 3)
    assert [(bad.index, bad.name) for bad in batch.failed] == [(1, "none")]
    np.testing.assert_allclose(found.probabilities, predictor.predict_proba([first, second, second]), atol=1e-6)
    side = predictor.preprocess.size
    assert batch.images.shape == (3, 3, side, side) and found.probabilities.shape == (3, len(predictor.classes_))


def test_a_batch_without_an_image_has_no_probabilities(predictor: Predictor) -> None:
    ((batch, found),) = predictor.stream([b"", Item("x", b"y")])
    side = predictor.preprocess.size
    assert batch.images.shape == (0, 3, side, side) and found.probabilities.shape == (0, len(predictor.classes_))
    assert list(predictor.stream([])) == []


def test_what_is_no_list_of_images_is_refused_by_both(predictor: Predictor, tmp_path: Path) -> None:
    for images, words in (
        (str(tmp_path / "one.png"), "expected a list of images or a folder"),
        (b"bytes", "expected a list of images, found one bytes"),
        (3, "found one int"),
        ([], "found none"),
        ([b"no image"], "not an image.* Leave it out"),
    ):
        with pytest.raises(DataError, match=words):
            predictor.predict(images)
