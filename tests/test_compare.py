"""Methods side by side in Python."""

from pathlib import Path

import pytest

from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import Backbone, load_backbone
from daptune.compare import compare_methods
from daptune.errors import DataError, MethodError

from .conftest import CLASSES


@pytest.fixture(scope="module")
def backbone(made_up_backbone: str) -> Backbone:
    return load_backbone(made_up_backbone, precision="fp32")


def test_methods_are_compared_in_the_given_order_without_held_out_images(backbone: Backbone, pictures: Path) -> None:
    classifier = FewShotClassifier("dapt", backbone, method_options={"text_tokens": 2})
    found = compare_methods(classifier, pictures, methods=["prototype", "zero-shot"], holdout=0.2)
    assert [row.method for row in found.rows] == ["prototype", "zero_shot"]
    kept = 8 * len(CLASSES)  # of 10 pictures a class, a fifth is held out
    assert all(row.correct is not None and len(row.correct) == kept for row in found.rows)
    assert f"5-fold cross-validation of {kept} images" in found.how


def test_bad_input(backbone: Backbone, pictures: Path) -> None:
    classifier = FewShotClassifier(backbone=backbone)
    with pytest.raises(DataError, match="needs 2 of a class, found 1 of each"):
        compare_methods(FewShotClassifier(backbone=backbone, shots=1), pictures)
    with pytest.raises(DataError, match="--folds is 11, but no class has more than 10 images; use at most 10"):
        compare_methods(classifier, pictures, methods=["zero_shot"], folds=11)
    with pytest.raises(DataError, match="--folds must be at least 2; found 1"):
        compare_methods(classifier, pictures, methods=["zero_shot"], folds=1)
    with pytest.raises(MethodError, match="Did you mean 'prototype'"):
        compare_methods(classifier, pictures, methods=["prototypes"])
    with pytest.raises(MethodError, match="lp_pp is named twice"):
        compare_methods(classifier, pictures, methods=["lp_pp", "LP-PP"])
    with pytest.raises(MethodError, match="no method to compare was named"):
        compare_methods(classifier, pictures, methods=[])
