"""Logistic regression of many images, held against scikit-learn's."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from daptune.methods import logistic
from daptune.methods.fast_logistic import FastLogistic
from daptune.methods.logistic import search_c

from .test_linear_probe import blobs, uneven_blobs

WEIGHTS = np.array([0.5, 1.5, 4.0])


def steep(seed: int) -> tuple[Any, Any]:
    """Unbalanced, with directions a hundred times as long as others, a constant one and a mean far from zero."""
    features, labels = uneven_blobs(seed)
    return np.c_[features * np.array([100, 10, 1, 1, 1, 0.1]) + 5, np.full(len(labels), 3.0)], labels


def objective(weight: Any, bias: Any, c: float, features: Any, labels: Any, weights: Any) -> float:
    """The sum of the losses times c, plus half the squared norm, in a plain loop."""
    total = 0.5 * float((weight**2).sum())
    for image, label in zip(features, labels, strict=True):
        logits = weight @ image + bias
        total += c * weights[label] * float(np.log(np.exp(logits - logits[label]).sum()))
    return total


@pytest.mark.parametrize("c", [1e-3, 0.3, 30.0])
@pytest.mark.parametrize("weights", [np.ones(3), WEIGHTS])
def test_the_optimum_is_that_of_newton(c: float, weights: Any) -> None:
    features, labels = steep(2)
    least = objective(*newton(c, features, labels, weights), c, features, labels, weights)
    found = objective(*FastLogistic(features, labels, weights).optimum(c), c, features, labels, weights)
    assert least <= found * (1 + 1e-9) and found == pytest.approx(least, rel=1e-6)


def newton(c: float, features: Any, labels: Any, weights: Any) -> tuple[Any, Any]:
    """The optimum, by scikit-learn."""
    by_image = None if weights is None else weights[labels]
    model = LogisticRegression(C=c, max_iter=1000, solver="newton-cg", tol=1e-9).fit(features, labels, by_image)
    return model.coef_, model.intercept_


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_search_on_many_images_is_the_protocol_with_fits_that_arrive(
    weights: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, found = (1e4, 1e2, 1.0, 1e-2, 1e-4), []
    for seed in range(5):
        train, val = blobs(9, seed, 3, spread=2.5), blobs(40, seed + 50, 3, spread=2.5)
        with monkeypatch.context() as few:
            few.setattr(logistic, "_by_protocol", newton)
            expected = search_c(grid, 5, train, val, weights, seed=1)
            few.setattr(logistic, "MANY_IMAGES", 10)
            few.setattr(logistic, "MANY_PER_CLASS", 1)
            few.setattr(logistic, "LIGHT", 0)
            few.delattr(logistic, "_by_protocol")
            found.append(search_c(grid, 5, train, val, weights, seed=1))
        assert found[-1] == expected
    assert len(set(found)) > 1
