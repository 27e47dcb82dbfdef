"""The linear probe and its search for C."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from daptune.errors import MethodError
from daptune.methods import METHODS, logistic, make_config
from daptune.methods.linear_probe import LinearProbe, LinearProbeConfig
from daptune.methods.logistic import fit_logistic, search_c

from .conftest import NAMES, Pictures, make_pictures


def blobs(per_class: int, seed: int, classes: int = 3, spread: float = 1.5) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(classes, 6))
    labels = np.arange(classes).repeat(per_class)
    return centres[labels] + spread * rng.normal(size=(len(labels), 6)), labels


def official_search(train: tuple[Any, Any], val: tuple[Any, Any]) -> float:
    """METHODS A.2 written out: grid, then eight steps that fit both ends again."""
    accuracy = lambda c: (LogisticRegression(C=c, max_iter=1000).fit(*train).predict(val[0]) == val[1]).mean()  # noqa: E731
    grid = [1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6]
    peak = grid[int(np.argmax([accuracy(c) for c in grid]))]
    left, right, final = 0.1 * peak, 10 * peak, 0.0
    for _ in range(8):
        middle = 10 ** (0.5 * (math.log10(left) + math.log10(right)))
        if accuracy(left) < accuracy(right):
            final, left = right, middle
        else:
            final, right = left, middle
    return final


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize("seed", range(4))
def test_the_search_is_the_official_one(seed: int) -> None:
    train, val = blobs(4, seed), blobs(20, seed + 100)
    found = search_c(LinearProbeConfig().c_grid, 8, train, val, seed=1)
    assert found == pytest.approx(official_search(train, val), rel=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
def test_weights_give_the_probabilities_of_scikit_learn(classes: int) -> None:
    features, labels = blobs(6, 0, classes)
    weight, bias = fit_logistic(0.5, features, labels)
    assert weight.shape == (classes, 6) and bias.shape == (classes,)
    found = torch.softmax(torch.from_numpy(features @ weight.T + bias), -1)
    expected = LogisticRegression(C=0.5, max_iter=1000).fit(features, labels).predict_proba(features)
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-9, rtol=1e-7)


def test_without_validation_images_the_folds_decide() -> None:
    train = blobs(8, 3)
    found = search_c((1e4, 1e-4), 3, train, None, seed=1)
    assert found == search_c((1e4, 1e-4), 3, train, None, seed=1) and found > 0


def test_one_image_a_class_leaves_nothing_to_search_on() -> None:
    assert search_c((1e6, 1e-6), 8, blobs(1, 0), None, seed=1) == logistic.UNSEARCHED_C == 1
    assert search_c((0.3,), 0, blobs(1, 0), None, seed=1) == 0.3


def test_it_separates_what_can_be_separated(backbone: Any) -> None:
    probe = LinearProbe(backbone, NAMES)
    train, val, test = (make_pictures(len(NAMES), shots, seed) for shots, seed in ((4, 0), (4, 1), (8, 2)))
    probe.before_fit(train, val)
    assert not probe.trainable and set(probe.state_dict()) == {"weight", "bias"} and probe.weight.dtype == torch.float32
    assert (probe.logits(test.images).argmax(-1) == test.labels).float().mean() > 0.9
    expected = backbone.clip.encode_image(test.images) @ probe.weight.T + probe.bias
    torch.testing.assert_close(probe.logits(test.images), expected)
    losses = probe.losses(test.images, test.labels)
    assert set(losses) == {"cross_entropy", "total"}


def test_features_in_front_of_the_projection(backbone: Any, pictures: Pictures) -> None:
    probe = LinearProbe(backbone, NAMES, LinearProbeConfig(features="pre_projection"))
    features = probe.frozen_features(pictures.images)
    assert features.shape == (12, 32) and probe.weight.shape == (4, 32)
    expected = backbone.clip.encode_image(pictures.images)
    torch.testing.assert_close(features @ backbone.clip.visual.proj, expected, atol=1e-5, rtol=1e-5)
    assert backbone.clip.visual.proj.shape == (32, 24)  # the tower is as it was
    probe.before_fit(pictures)
    assert probe.weight.any()


def test_normalised_features_have_length_one(backbone: Any, pictures: Pictures) -> None:
    probe = LinearProbe(backbone, NAMES, LinearProbeConfig(normalize=True))
    torch.testing.assert_close(probe.frozen_features(pictures.images).norm(dim=-1), torch.ones(12))


def test_refit_learns_from_the_validation_images_too(backbone: Any) -> None:
    train, val = make_pictures(4, 2, 0), make_pictures(4, 2, 1)
    options = {"c_grid": "0.5", "search_steps": 0}
    both = Pictures(torch.cat([train.images, val.images]), torch.cat([train.labels, val.labels]))
    refit, whole = (
        METHODS["linear_probe"](backbone, NAMES, make_config("linear_probe", options | {"refit": refit}))
        for refit in (True, False)
    )
    refit.before_fit(train, val)
    whole.before_fit(both)
    torch.testing.assert_close(refit.state_dict(), whole.state_dict())


def test_two_classes_work_and_one_does_not(backbone: Any) -> None:
    two = make_pictures(2, 4)
    probe = LinearProbe(backbone, NAMES[:2])
    probe.before_fit(two)
    assert (probe.logits(two.images).argmax(-1) == two.labels).all()
    with pytest.raises(MethodError, match="two or more classes"):
        LinearProbe(backbone, NAMES[:1]).before_fit(Pictures(two.images[:1], two.labels[:1]))
    with pytest.raises(MethodError, match=r"each of its 4, found 2 classes"):
        LinearProbe(backbone, NAMES).before_fit(two)


def test_it_has_no_text_features_and_takes_no_new_classes(backbone: Any) -> None:
    probe = LinearProbe(backbone, NAMES)
    with pytest.raises(MethodError, match="no text features"):
        probe.text_features()
    with pytest.raises(MethodError, match="cannot take new class names"):
        probe.with_classes(["dog"])


def uneven_blobs(seed: int) -> tuple[Any, Any]:
    features, labels = blobs(20, seed, spread=2.5)
    kept = np.concatenate([np.flatnonzero(labels == c)[:count] for c, count in enumerate((20, 5, 3))])
    return features[kept], labels[kept]


def test_weights_of_classes_are_scikit_learns() -> None:
    features, labels = uneven_blobs(1)
    weights = np.array([0.5, 1.5, 4.0])
    found = fit_logistic(0.5, features, labels, weights)
    model = LogisticRegression(C=0.5, max_iter=1000, class_weight=dict(enumerate(weights))).fit(features, labels)
    np.testing.assert_allclose(found[0], model.coef_, atol=1e-8)
    assert not np.allclose(found[0], fit_logistic(0.5, features, labels)[0], atol=1e-2)


def test_the_search_counts_hits_by_their_weight() -> None:
    """Of two strengths, the one whose hits weigh more, by the predictions of scikit-learn itself."""
    train, weights, chosen = uneven_blobs(1), np.array([0.1, 1.0, 9.0]), set()
    for seed in range(6):
        val = uneven_blobs(seed + 50)
        hits = {}
        for c in (1e-4, 1e-1):
            model = LogisticRegression(C=c, max_iter=1000).fit(*train, weights[train[1]])
            hits[c] = float(weights[val[1]][model.predict(val[0]) == val[1]].sum())
        found = search_c((1e-4, 1e-1), 0, train, val, weights, seed=1)
        assert found == pytest.approx(max(hits, key=hits.__getitem__))
        chosen.add(found)
    assert len(chosen) > 1


def test_the_probe_heeds_the_weights_of_its_classes(backbone: Any) -> None:
    pictures = make_pictures(len(NAMES), 4)
    plain, weighted = (LinearProbe(backbone, NAMES, LinearProbeConfig(c_grid=(1.0,), search_steps=0)) for _ in range(2))
    weighted.class_weight = torch.tensor([0.2, 0.4, 0.4, 3.0])
    for method in (plain, weighted):
        method.before_fit(pictures)
    logits = [method.logits(pictures.images).softmax(-1).mean(0) for method in (plain, weighted)]
    assert logits[1][3] > logits[0][3] + 0.01
