"""GDA against the formulas by plain loops in float64: means, precision, logits, alpha, classes without images."""

import logging
from typing import Any

import numpy as np
import pytest
import torch

from daptune.data.fewshot import stratified_folds
from daptune.errors import MethodError
from daptune.methods.gaussian import best_alpha, fit_gaussian, unseen_classes
from daptune.methods.gda import GDA, GDAConfig

from .conftest import NAMES, Pictures, make_pictures, uneven_pictures

ALPHAS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)


def unit_rows(backbone: Any, pictures: Pictures, view: int | None) -> np.ndarray:
    """Unit features (n, D), one image at a time."""
    batches = pictures.evaluation() if view is None else pictures.augmented_view(view)
    rows = [
        backbone.clip.encode_image(image[None])[0].detach().double().numpy()
        for images, _ in batches
        for image in images
    ]
    return np.array([row / np.sqrt((row**2).sum()) for row in rows])


def scores_of(vectors: np.ndarray, labels: np.ndarray, counted: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """W^T (C, D) and b (C,) of all vectors (N, D), which count as `counted` images: loops over vectors and classes."""
    size = vectors.shape[1]
    means = np.array([vectors[labels == c].mean(axis=0) for c in range(classes)])
    scatter = np.zeros((size, size))
    for x, y in zip(vectors, labels, strict=True):
        scatter += np.outer(x - means[y], x - means[y])
    covariance = scatter / (len(vectors) - 1)
    precision = size * np.linalg.inv((counted - 1) * covariance + np.trace(covariance) * np.eye(size))
    weight = np.array([precision @ mu for mu in means])
    return weight, np.array([-mu @ precision @ mu / 2 for mu in means])


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("views", [0, 1, 3])
def test_weights_and_logits_are_the_written_out_ones(
    official: bool, views: int, backbone: Any, uneven: Pictures
) -> None:
    method = GDA(backbone, NAMES, GDAConfig(views=views, official_count=official, alphas=(0.5,)))
    method.before_fit(uneven)
    passes = [unit_rows(backbone, uneven, view) for view in range(views)] or [unit_rows(backbone, uneven, None)]
    labels = np.tile(uneven.labels.numpy(), len(passes))
    counted = len(labels) if official else len(uneven.labels)
    weight, bias = scores_of(np.concatenate(passes), labels, counted, 4)
    weight, bias = weight - weight.mean(axis=0), bias - bias.mean()  # the same for all classes
    np.testing.assert_allclose(method.weight.numpy() / weight.std(), weight / weight.std(), atol=1e-5)
    np.testing.assert_allclose(method.bias.numpy() / bias.std(), bias / bias.std(), atol=1e-4)
    assert method.alpha.item() == 0.5
    z, t = unit_rows(backbone, uneven, None)[:3], method.text_features().double().numpy()
    expected = [[100 * z[b] @ t[c] + 0.5 * (z[b] @ weight[c] + bias[c]) for c in range(4)] for b in range(3)]
    scale = float(method.scale) / 100
    expected = np.array(expected) + (scale - 1) * 100 * z @ t.T
    found = method.logits(uneven.images[:3]).numpy()
    np.testing.assert_allclose(found / np.abs(expected).max(), expected / np.abs(expected).max(), atol=1e-5)


def test_views_of_an_image_are_one_image_unless_the_official_count_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(3, 5, 4)), np.array([0, 1, 1, 0, 0])
    scatter = np.zeros((4, 4))
    for c in (0, 1):
        of_class = x[:, labels == c].reshape(-1, 4)
        scatter += (of_class - of_class.mean(axis=0)).T @ (of_class - of_class.mean(axis=0))
    trace = np.trace(scatter) * np.eye(4)
    ours = 4 * np.linalg.inv((4 / 14) * scatter + trace / 14)
    theirs = 4 * np.linalg.inv(scatter + trace / 14)
    np.testing.assert_allclose(fit_gaussian(x, labels, 2).precision, ours, rtol=1e-9)
    np.testing.assert_allclose(fit_gaussian(x, labels, 2, official_count=True).precision, theirs, rtol=1e-9)


def test_the_official_covariance_is_the_mean_over_classes_of_their_own() -> None:
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(2, 9, 3)), np.array([0, 1, 1, 0, 0, 1, 1, 1, 2])
    covariances = []
    for c in range(3):
        rows = x[:, labels == c].reshape(-1, 3)
        centred = rows - rows.mean(axis=0)
        covariances.append(sum(np.outer(row, row) for row in centred) / (len(rows) - 1))
    expected = np.linalg.pinv(sum(covariances) / 3)
    np.testing.assert_allclose(fit_gaussian(x, labels, 3, official_covariance=True).precision, expected, rtol=1e-8)


def accuracies(zero_shot: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> list[int]:
    rows = range(len(labels))
    return [sum(int(np.argmax(zero_shot[i] + a * scores[i]) == labels[i]) for i in rows) for a in ALPHAS]


def test_alpha_is_the_best_on_validation_images_and_the_smallest_of_equals(backbone: Any, uneven: Pictures) -> None:
    val = uneven_pictures((3, 1, 4, 2), seed=5)
    method = GDA(backbone, NAMES, GDAConfig(views=2))
    method.before_fit(uneven, val)
    z = unit_rows(backbone, val, None)
    zero_shot = float(method.scale) * z @ method.text_features().double().numpy().T
    scores = z @ method.weight.double().numpy().T + method.bias.double().numpy()
    right = accuracies(zero_shot, scores, val.labels.numpy())
    assert len(set(right)) > 1
    assert method.alpha.item() == pytest.approx(ALPHAS[right.index(max(right))])
    tie = [(fit_gaussian(np.eye(2)[None], np.array([0, 1]), 2), np.eye(2), np.eye(2), np.array([0, 1]))]
    assert best_alpha((10.0, 0.1, 1.0), tie, 7.0) == 0.1
    assert best_alpha((10.0, 0.1), [], 7.0) == 7.0


def test_without_validation_alpha_is_cross_validated_with_all_views_of_an_image_together(
    backbone: Any, uneven: Pictures
) -> None:
    method = GDA(backbone, NAMES, GDAConfig(views=2), seed=3)
    method.before_fit(uneven)
    x = np.stack([unit_rows(backbone, uneven, view) for view in (0, 1)])
    z, labels = unit_rows(backbone, uneven, None), uneven.labels.numpy()
    zero_shot = float(method.scale) * z @ method.text_features().double().numpy().T
    right = np.zeros(len(ALPHAS), int)
    for kept, out in stratified_folds(uneven.table, 5, 3):
        weight, bias = scores_of(x[:, kept].reshape(-1, x.shape[2]), np.tile(labels[kept], 2), len(kept), 4)
        right += accuracies(zero_shot[out], z[out] @ weight.T + bias, labels[out])
    assert method.alpha.item() == pytest.approx(ALPHAS[right.tolist().index(right.max())])


def test_one_image_a_class_keeps_alpha_and_without_a_scatter_it_is_zero_shot(
    backbone: Any, caplog: pytest.LogCaptureFixture
) -> None:
    one = make_pictures(len(NAMES), 1)
    method = GDA(backbone, NAMES, GDAConfig(views=2, alpha=0.3))
    method.before_fit(one)
    assert method.alpha.item() == pytest.approx(0.3) and method.weight.any() and not caplog.records
    method = GDA(backbone, NAMES, GDAConfig(views=0))
    with caplog.at_level(logging.WARNING, "daptune"):
        method.before_fit(one)
    assert ["zero-shot CLIP's: give more images of a class" in record.message for record in caplog.records] == [True]
    plain = method.scale * method.image_features(one.images) @ method.text_features().mT
    torch.testing.assert_close(method.logits(one.images), plain)


def test_a_class_without_images_is_refused(backbone: Any, pictures: Pictures) -> None:
    with pytest.raises(MethodError, match="gda expected images of every class"):
        GDA(backbone, NAMES).before_fit(Pictures(pictures.images[:3], pictures.labels[:3]))
    for options in ({"views": -1}, {"alphas": ()}, {"alphas": (0.0, 1.0)}, {"alpha": 0}):
        with pytest.raises(MethodError, match="expected"):
            GDAConfig(**options)


@pytest.mark.parametrize("many", [5, 90])
def test_a_class_without_images_is_made_of_the_vectors_near_its_text(many: int) -> None:
    """64 of them if there are as many, and the text counts a quarter of that."""
    rng = np.random.default_rng(2)
    vectors, texts = rng.normal(size=(many, 3)), rng.normal(size=(2, 3))
    k, precision, means = min(64, many), np.zeros((3, 3)), []
    for t in texts:
        near = sorted(vectors, key=lambda x: -(x @ t))[:k]
        means.append((sum(near) + k / 4 * t) / (k + k / 4))
        spread = sum(np.outer(x - t, x - t) for x in near)
        precision += 3 * np.linalg.inv(spread + np.trace(spread) / (k - 1) * np.eye(3)) / 2
    found = unseen_classes(vectors, texts)
    np.testing.assert_allclose(found.weights, [precision @ mu for mu in means], rtol=1e-9)
    np.testing.assert_allclose(found.bias, [-mu @ precision @ mu / 2 for mu in means], rtol=1e-9)


def test_named_later_a_class_of_the_fit_keeps_its_row_and_others_get_theirs(backbone: Any, uneven: Pictures) -> None:
    method = GDA(backbone, NAMES, GDAConfig(views=2, new_classes=True)).eval()
    method.before_fit(uneven)
    other = method.with_classes(["zebra", NAMES[2], "horse"])
    again = GDA(backbone, ["zebra", NAMES[2], "horse"], method.config)
    again.load_state_dict(other.state_dict())
    vectors = np.concatenate([unit_rows(backbone, uneven, view) for view in (0, 1)])
    expected = unseen_classes(vectors, other.text_features()[[0, 2]].double().numpy())
    for found in (other, again):
        weight, bias = found.rows()
        torch.testing.assert_close((weight[1], bias[1]), (method.weight[2], method.bias[2]))
        for place, row in ((0, 0), (2, 1)):
            np.testing.assert_allclose(weight[place].numpy(), expected.weights[row], rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(bias[place].item(), expected.bias[row], rtol=1e-3)
    with pytest.raises(MethodError, match="cannot take new class names"):
        GDA(backbone, NAMES).with_classes(["dog"])


def test_sizes(vit_b_16: Any) -> None:
    method = GDA(vit_b_16, NAMES)
    assert method.parameter_count == 4 * 513 + 1 and not method.trainable and not method.joins_ensemble


def test_to_add_classes_nothing_is_taken_off(backbone: Any, uneven: Pictures) -> None:
    method = GDA(backbone, NAMES, GDAConfig(views=2, new_classes=True))
    method.before_fit(uneven)
    vectors = np.concatenate([unit_rows(backbone, uneven, view) for view in (0, 1)])
    weight, bias = scores_of(vectors, np.tile(uneven.labels.numpy(), 2), len(uneven.labels), 4)
    np.testing.assert_allclose(method.weight.numpy() / weight.std(), weight / weight.std(), atol=1e-5)
    np.testing.assert_allclose(method.bias.numpy() / bias.std(), bias / bias.std(), atol=1e-4)
