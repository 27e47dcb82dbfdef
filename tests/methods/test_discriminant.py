"""Discriminant analysis against scikit-learn's, and leave-one-out scores against an inverse for every image."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from daptune.methods.discriminant import SHRINKAGE, Discriminant

rng = np.random.default_rng(3)
UNEVEN = np.array([0, 0, 1, 1, 1, 1, 1, 2, 3, 3, 3])


def pictures(labels: np.ndarray, size: int) -> np.ndarray:
    """Features of unequal variance around class means."""
    means = np.random.default_rng(7).normal(size=(5, size))
    return means[labels] + rng.normal(size=(len(labels), size)) * np.linspace(0.2, 3, size)


@pytest.mark.parametrize("size", [3, 20])
def test_balanced_classes_as_in_scikit_learn(size: int) -> None:
    labels = np.repeat(np.arange(4), 6)
    z, new = pictures(labels, size), rng.normal(size=(9, size))
    free = 24 - 4
    shrinkage = SHRINKAGE * size / (free + SHRINKAGE * size)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=[0.25] * 4).fit(z, labels)
    # scikit-learn divides the scatter by n and adds the log of the prior
    expected = (theirs.decision_function(new) - np.log(0.25)) * free / 24
    found = Discriminant.fit(z, labels, 4)(new)  # the length of means of equally many images is corrected alike
    np.testing.assert_allclose(found - found[:, :1], expected - expected[:, :1], rtol=1e-9, atol=1e-9)


def covariance(z: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The shrunk covariance by a loop over images, an image's share in it, and the mean length of deviations by it."""
    size = z.shape[1]
    scatter = np.zeros((size, size))
    for c in set(labels.tolist()):
        for image in z[labels == c]:
            r = image - z[labels == c].mean(axis=0)
            scatter += np.outer(r, r)
    free = len(z) - len(set(labels.tolist()))
    share = 1 / (free + SHRINKAGE * size)
    found = share * (scatter + SHRINKAGE * np.trace(scatter) / free * np.eye(size))
    return found, share, float(np.trace(np.linalg.inv(found) @ scatter)) / free


def test_each_class_has_its_own_mean_and_all_share_the_covariance() -> None:
    z, new = pictures(UNEVEN, 6), rng.normal(size=(5, 6))
    whole, _, noise = covariance(z, UNEVEN)
    inverse = np.linalg.inv(whole)
    found = Discriminant.fit(z, UNEVEN, 4)(new)
    for c in range(4):
        own = z[c == UNEVEN]
        mu = own.mean(axis=0)
        length = mu @ inverse @ mu - noise / len(own)
        np.testing.assert_allclose(found[:, c], new @ inverse @ mu - length / 2, rtol=1e-9)


def test_leaving_an_image_out_removes_it_from_its_mean_and_from_the_covariance() -> None:
    z = pictures(UNEVEN, 6)
    whole, share, noise = covariance(z, UNEVEN)
    found = Discriminant.fit(z, UNEVEN, 4).left_out(z, UNEVEN)
    for i, label in enumerate(UNEVEN):
        n = int((label == UNEVEN).sum())
        if n == 1:
            assert np.isnan(found[i]).all()
            continue
        r = z[i] - z[label == UNEVEN].mean(axis=0)
        inverse = np.linalg.inv(whole - share * n / (n - 1) * np.outer(r, r))
        for c in range(4):
            own = z[(c == UNEVEN) & (np.arange(len(z)) != i)]
            mu = own.mean(axis=0)
            length = mu @ inverse @ mu - noise / len(own)
            assert found[i, c] == pytest.approx(z[i] @ inverse @ mu - length / 2, rel=1e-8)


def test_the_number_of_its_images_neither_helps_nor_harms_a_class() -> None:
    """Where classes do not differ, the mean of two images scores as that of sixteen on average over draws."""
    labels, draws, found, noise = np.repeat(np.arange(4), [2, 16, 3, 8]), np.random.default_rng(11), [], []
    for _ in range(500):
        fitted = Discriminant.fit(draws.normal(size=(len(labels), 4)), labels, 4)
        found.append(fitted(draws.normal(size=(50, 4))).mean(axis=0))
        noise.append(fitted.noise)
    few, many = np.mean(found, axis=0)[:2]
    uncorrected = np.mean(noise) * (1 / 2 - 1 / 16) / 2
    assert abs(few - many) < 0.2 * uncorrected


def test_an_image_that_is_left_out_scores_in_its_class_as_in_others() -> None:
    """Where classes do not differ: with two images a class, its own mean is of one, the others' of two."""
    labels, draws, margins, noise = np.repeat(np.arange(20), 2), np.random.default_rng(5), [], []
    for _ in range(300):
        z = draws.normal(size=(40, 4))
        fitted = Discriminant.fit(z, labels, 20)
        found = fitted.left_out(z, labels)
        own = found[np.arange(40), labels]
        margins.append((own - (found.sum(axis=1) - own) / 19).mean())
        noise.append(fitted.noise)
    uncorrected = np.mean(noise) * (1 - 1 / 2) / 2
    assert abs(np.mean(margins)) < 0.3 * uncorrected


def test_leaving_out_almost_equals_a_new_fit_where_images_are_many() -> None:
    """The divisor and the isotropic part of S are those of all images, which matters little for 200."""
    labels = np.repeat(np.arange(4), [20, 80, 40, 60])
    z = pictures(labels, 6)
    found = Discriminant.fit(z, labels, 4).left_out(z, labels)
    for i in (0, 25, 199):
        others = np.delete(np.arange(200), i)
        again = Discriminant.fit(z[others], labels[others], 4)(z[i : i + 1])[0]
        # only differences between classes matter
        np.testing.assert_allclose(found[i] - found[i].mean(), again - again.mean(), atol=0.02 * again.std())


def test_one_image_a_class_gives_the_nearest_mean() -> None:
    labels = np.array([2, 0, 1])
    z, new = pictures(labels, 4), rng.normal(size=(6, 4))
    found = Discriminant.fit(z, labels, 3)
    distances = ((new[:, None] - z[np.argsort(labels)]) ** 2).sum(axis=2)
    np.testing.assert_allclose(found(new) - (new**2).sum(axis=1, keepdims=True) / 2, -distances / 2, rtol=1e-9)
    assert np.isnan(found.left_out(z, labels)).all()


def test_equal_images_have_no_covariance() -> None:
    z = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert Discriminant.fit(z, np.array([0, 0, 1, 1]), 2).precision.tolist() == [[1, 0], [0, 1]]


def test_a_class_without_images_lies_in_the_middle() -> None:
    z = np.array([[2.0, 0.0], [0.0, 4.0], [0.0, 2.0]])
    assert Discriminant.fit(z, np.array([0, 2, 2]), 3).means.tolist() == [[2, 0], [1, 1.5], [0, 3]]
