"""Labels that were swapped on purpose are found; the probabilities are of a model that has not seen the image."""

import numpy as np
import pytest

from daptune.report.mislabelled import leave_one_out, suspects


def gathered(classes: int, each: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit features (n, 16) around a centre a class, and labels."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, 16))
    labels = np.repeat(np.arange(classes), each)
    features = centres[labels] + noise * rng.normal(size=(len(labels), 16))
    return features / np.linalg.norm(features, axis=1, keepdims=True), labels


def test_swapped_labels_come_first() -> None:
    features, labels = gathered(5, 12, 0.5)
    given = labels.copy()
    for row, wrong in ((3, 4), (20, 0), (50, 2)):
        given[row] = wrong
    found = suspects(features, given, 5)
    assert {one.row for one in found[:3]} == {3, 20, 50}
    assert all(one.likely == labels[one.row] and one.given == given[one.row] for one in found[:3])
    assert all(one.p_likely > one.p_given for one in found)
    assert len(found) <= 6, "right labels of well-parted classes are not suspected by the dozen"


def test_clean_labels_of_well_parted_classes_are_left_alone() -> None:
    features, labels = gathered(4, 10, 0.1)
    assert suspects(features, labels, 4) == []


def test_each_image_is_left_out_of_its_own_prototype() -> None:
    features, labels = gathered(3, 4, 1.0)
    found = leave_one_out(features, labels, 3)
    for row in range(len(labels)):
        others = np.arange(len(labels)) != row
        means = np.array([features[others & (labels == c)].mean(axis=0) for c in range(3)])
        cosines = means @ features[row] / np.linalg.norm(means, axis=1)
        gaps = np.log(found[row]) - np.log(found[row, 0])
        scale = gaps[1] / (cosines[1] - cosines[0])
        assert gaps[2] == pytest.approx(scale * (cosines[2] - cosines[0]))


def test_a_class_with_one_image_is_not_judged_and_accuses_none() -> None:
    features, labels = gathered(3, 6, 0.3)
    kept = np.r_[0, 6:18]  # one image of class 0
    found = leave_one_out(features[kept], labels[kept], 3)
    assert np.isnan(found[0]).all() and not np.isnan(found[1:]).any()
    assert all(one.likely != 0 and one.row != 0 for one in suspects(features[kept], labels[kept], 3))
    assert suspects(features[:1], labels[:1], 3) == []
