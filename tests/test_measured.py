"""Figures of predictions on images with any number of labels, beside scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics as sk

from daptune import metrics
from daptune.errors import DataError
from daptune.measured import Presence


def made(images: int, seed: int, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Labels of unbalanced classes, the last without any, and scores that know something of them."""
    rng = np.random.default_rng(seed)
    y = rng.random((images, 5)) < np.array([0.7, 0.3, 0.1, 0.04, 0.0])
    y[0, 3] = True
    p = 1 / (1 + np.exp(-rng.normal(size=y.shape) - y))
    return y, np.round(p, 1) if ties else p


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("images", [1, 7, 200])
def test_average_precision_is_that_of_scikit_learn(images: int, ties: bool) -> None:
    y, p = made(images, seed=images, ties=ties)
    found = metrics.average_precision(y, p)
    for place in range(5):
        if y[:, place].any():
            assert found[place] == pytest.approx(sk.average_precision_score(y[:, place], p[:, place]))
        else:
            assert np.isnan(found[place])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("images", [2, 7, 40])
def test_average_precision_without_an_image_is_that_of_the_others(images: int, ties: bool) -> None:
    y, p = made(images, seed=images, ties=ties)
    found, every = metrics.average_precision_without(y, p), np.arange(images)
    for image in range(images):
        others = every != image
        for place in range(5):
            if y[others, place].any():
                expected = sk.average_precision_score(y[others, place], p[others, place])
                assert found[image, place] == pytest.approx(expected)
            else:
                assert np.isnan(found[image, place])


def test_the_figures_are_those_of_scikit_learn() -> None:
    y, p = made(120, seed=2)
    levels = np.array([0.6, 0.5, 0.4, 0.7, 0.5])
    found, there = Presence(p, y, thresholds=levels), list(range(4))
    said = p >= levels
    assert found.mean_average_precision == pytest.approx(
        sk.average_precision_score(y[:, there], p[:, there], average="macro")
    )
    assert found.headline == found.mean_average_precision
    assert found.macro_f1 == pytest.approx(sk.f1_score(y[:, there], said[:, there], average="macro"))
    assert found.micro_f1 == pytest.approx(sk.f1_score(y, said, average="micro"))
    assert found.accuracy == pytest.approx(sk.accuracy_score(y, said))
    assert found.nll == pytest.approx(np.mean([sk.log_loss(y[:, c], p[:, c], labels=[0, 1]) for c in range(5)]))
    content = found.to_json(["a", "b", "c", "d", "e"])
    assert list(content["per_class"]) == list(content["per_class_f1"]) == ["a", "b", "c", "d"]
    assert content["thresholds"]["d"] == 0.7 and content["mean_average_precision"] == found.headline


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_has_a_better_f1(seed: int) -> None:
    y, p = made(40, seed, ties=seed % 2 == 0)
    found = metrics.best_thresholds(y, p, 0.5)
    assert found[4] == 0.5  # without images
    for place in range(4):
        own = sk.f1_score(y[:, place], p[:, place] >= found[place])
        best = max(sk.f1_score(y[:, place], p[:, place] >= level) for level in np.unique(p[:, place]))
        assert own == pytest.approx(best)


def test_a_threshold_lies_between_two_images_and_near_the_middle() -> None:
    y = np.array([[1], [1], [0], [0]])
    assert metrics.best_thresholds(y, [[0.9], [0.8], [0.3], [0.1]], 0.5).tolist() == pytest.approx([0.55])
    alike = np.array([[1], [0], [0], [1]])  # the first alone and all four have an F1 of 2/3
    assert metrics.best_thresholds(alike, [[0.9], [0.7], [0.6], [0.2]], 0.5).tolist() == pytest.approx([0.8])
    assert metrics.best_thresholds(alike, [[0.9], [0.7], [0.6], [0.2]], 0.1).tolist() == pytest.approx([0.1])


def test_shapes_must_agree() -> None:
    with pytest.raises(DataError, match="an indicator matrix and scores"):
        metrics.average_precision([[1, 0]], [[0.1, 0.2], [0.3, 0.4]])
