"""Methods side by side in Python."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import Backbone, load_backbone
from daptune.compare import compare_methods
from daptune.data.fewshot import stratified_folds
from daptune.data.sources import read_source
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


def test_several_labels_are_compared_by_the_map_of_fits_by_hand(backbone: Backbone, stripes_table: Path) -> None:
    options = {"epochs": 2, "batch_size": 8, "min_crop": 1.0, "optimizer": "sgd"}  # no crops: nothing is encoded apart
    classifier = FewShotClassifier(backbone=backbone, multi_label=True, train_options=options, shots="all")
    names = ["gda", "taskres", "zero_shot", "linear_probe"]
    found = compare_methods(classifier, stripes_table, methods=names, folds=3)
    assert found.left_out == ("gda", "linear_probe") and [row.method for row in found.rows] == ["taskres", "zero_shot"]
    drawn = read_source(stripes_table, multi_label=True)
    table, repeats = drawn.train, 3  # 36 images, and 150 predictions, but at most 10 fits
    assert found.how.startswith("3-fold cross-validation of 36 images, 3 times;")
    for row in found.rows:
        maps = []
        for seed in range(1, 1 + repeats):
            p = np.zeros(table.labels.shape)
            for train, held in stratified_folds(table, 3, seed):
                alone = FewShotClassifier(
                    row.method, backbone, multi_label=True, train_options=options, shots="all", calibrate="none"
                ).fit(table.subset(train), val=drawn.val)
                p[held] = alone.evaluate(table.subset(held)).probabilities
            maps.append(average_precision_score(table.labels, p, average="macro"))
        assert row.headline == pytest.approx(np.mean(maps), abs=1e-4)


def test_several_labels_of_methods_that_cannot_learn_them(backbone: Backbone, stripes_table: Path) -> None:
    classifier = FewShotClassifier(backbone=backbone, multi_label=True)
    with pytest.raises(MethodError, match=r"^gda, lp_pp cannot learn several labels; name taskres, .*coop"):
        compare_methods(classifier, stripes_table, methods=["gda", "lp_pp"])
    table = read_source(stripes_table, multi_label=True).train
    alone = table.subset(
        [int(np.flatnonzero(table.labels[:, 2])[0]), int(np.flatnonzero(~table.labels.any(axis=1))[0])]
    )
    with pytest.raises(DataError, match="needs 2 of a class, found 1 of each"):
        compare_methods(classifier, alone, methods=["zero_shot"])


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
