"""Logistic regression for the linear probe, and the search for its regularisation strength C.

The protocol of KaiyangZhou/CoOp lpclip/linear_probe.py, after Radford et al. 2021 (arXiv 2103.00020, appendix A.3):
L2-penalised, L-BFGS, at most 1,000 iterations, float64. C is the best value of a grid by validation accuracy (first on
ties); then a bracket of a decade on each side is bisected in log10 C, keeping the better end (the smaller on ties).
Without validation images, accuracy is that of a stratified cross-validation (up to 5 folds) on the training images, or
of its first fold if there are many; if a class has only one image, C is 1. Weights of classes, if given, count in the
loss and in the accuracy of the search.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Arrays = tuple[NDArray[np.float64], NDArray[np.int64]]  # features (n, D), labels (n,)
Linear = tuple[NDArray[np.float64], NDArray[np.float64]]  # weight (C, D), bias (C,)
Weights = NDArray[np.float64] | None  # of the classes in the loss, (C,)
UNSEARCHED_C = 1.0
MANY_IMAGES, MANY_PER_CLASS = 2000, 16
"""With more images than both, beyond few-shot protocols, one of the folds scores the search: it has images enough."""


def fit_logistic(c: float, features: NDArray[np.float64], labels: NDArray[np.int64], weights: Weights = None) -> Linear:
    """Logistic regression with strength `c`: weight (C, D) and bias (C,), also for two classes."""
    by_image = None if weights is None else weights[labels]
    from sklearn.exceptions import ConvergenceWarning  # slow to import
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # One thread: thousands of small steps, between which those of BLAS and OpenMP wait for each other.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the protocol always stops at 1,000 iterations
        model = LogisticRegression(C=c, max_iter=1000).fit(features, labels, by_image)
    if len(model.classes_) > 2:
        return model.coef_, model.intercept_
    halves = np.array([-0.5, 0.5])  # sigmoid(x) = softmax([-x / 2, x / 2])
    return halves[:, None] * model.coef_, halves * model.intercept_


def search_c(
    c_grid: Sequence[float], steps: int, known: Arrays, held_out: Arrays | None, weights: Weights = None, *, seed: int
) -> float:
    """Find C by the protocol, scored on `held_out`, or by cross-validation on `known`."""
    if len(c_grid) == 1 and not steps:
        return c_grid[0]
    score = _scorer(known, held_out, weights, seed)
    if score is None:
        return UNSEARCHED_C
    best = max(map(math.log10, c_grid), key=score)  # the first on ties
    left, right = best - 1, best + 1
    for _ in range(steps):
        middle = (left + right) / 2
        if score(left) < score(right):
            best, left = right, middle
        else:
            best, right = left, middle
    return float(10**best)


def _scorer(known: Arrays, held_out: Arrays | None, weights: Weights, seed: int) -> Callable[[float], float] | None:
    """Number of correct predictions, or their weights, by log10 C; None without images to score on."""
    features, labels = known
    if held_out is not None:
        everything = np.arange(len(labels))
        pool = np.concatenate([features, held_out[0]]), np.concatenate([labels, held_out[1]])
        folds = [(everything, np.arange(len(labels), len(pool[1])))]
    else:
        fewest = int(np.bincount(labels).min())
        if fewest < 2:
            return None
        from sklearn.model_selection import StratifiedKFold

        pool = known
        folds = list(StratifiedKFold(min(5, fewest), shuffle=True, random_state=seed).split(features, labels))
        if len(labels) > max(MANY_IMAGES, MANY_PER_CLASS * (int(labels.max()) + 1)):
            folds = folds[:1]

    @cache  # a bisection scores its better end twice
    def score(exponent: float) -> float:
        right = 0.0
        for fit, test in folds:
            weight, bias = fit_logistic(10**exponent, pool[0][fit], pool[1][fit], weights)
            hits = (pool[0][test] @ weight.T + bias).argmax(1) == pool[1][test]
            right += float(hits.sum() if weights is None else weights[pool[1][test]][hits].sum())
        return right

    return score
