"""Logistic regression for the linear probe, and the search for its regularisation strength C.

The protocol of KaiyangZhou/CoOp lpclip/linear_probe.py, after Radford et al. 2021 (arXiv 2103.00020, appendix A.3):
L2-penalised, L-BFGS, at most 1,000 iterations, float64. C is the best value of a grid by validation accuracy (first on
ties); then a bracket of a decade on each side is bisected in log10 C, keeping the better end (the smaller on ties).
Without validation images, accuracy is that of a stratified cross-validation (up to 5 folds) on the training images, or
of its first fold if there are many; if a class has only one image, C is 1. Weights of classes, if given, count in the
loss and in the accuracy of the search.

With many images, L-BFGS has not arrived after 1,000 iterations, where it stops depends on the order of the images, and
the fits of a search take minutes. There, C is searched by the optimum at each strength, which is found in a tenth of
the iterations (`fast_logistic`).
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from .fast_logistic import FastLogistic

Arrays = tuple[NDArray[np.float64], NDArray[np.int64]]  # features (n, D), labels (n,)
Linear = tuple[NDArray[np.float64], NDArray[np.float64]]  # weight (C, D), bias (C,)
Weights = NDArray[np.float64] | None  # of the classes in the loss, (C,)
UNSEARCHED_C = 1.0
MANY_IMAGES, MANY_PER_CLASS = 2000, 16
"""With more images than both, beyond few-shot protocols, one of the folds scores the search: it has images enough."""
LIGHT = 1_000_000
"""Multiplications of a pass (images x features x classes) up to which fits in several threads wait for each other."""
LOGITS = 2_000_000_000
"""Bytes that the logits of fits in several threads may take together."""


def fit_logistic(c: float, features: NDArray[np.float64], labels: NDArray[np.int64], weights: Weights = None) -> Linear:
    """Logistic regression with strength `c`: weight (C, D) and bias (C,), also for two classes."""
    with _one_thread_each():
        return _by_protocol(c, features, labels, weights)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Inside, fits use one thread: thousands of small steps, between which those of BLAS would wait for each other."""
    from sklearn.exceptions import ConvergenceWarning  # slow to import
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the protocol always stops at 1,000 iterations
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # one image a class is few-shot
        yield


def _by_protocol(c: float, features: NDArray[np.float64], labels: NDArray[np.int64], weights: Weights) -> Linear:
    from sklearn.linear_model import LogisticRegression

    by_image = None if weights is None else weights[labels]
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
    folds = _folds(known, held_out, seed)
    if folds is None:
        return UNSEARCHED_C
    exponents = [math.log10(c) for c in c_grid]
    with _one_thread_each(), _Scores(folds, weights, many=_is_many(known[1])) as score:
        best = _first_best(score, exponents)
        left, right = best - 1, best + 1
        for _ in range(steps):
            middle = (left + right) / 2
            low, high = score((left, right), ahead=middle)
            if low < high:
                best, left = right, middle
            else:
                best, right = left, middle
    return float(10**best)


Fold = tuple[Arrays, Arrays]  # to fit on, and to score on
Job = tuple[float, int]  # log10 C and the fold


def _is_many(labels: NDArray[np.int64]) -> bool:
    return len(labels) > max(MANY_IMAGES, MANY_PER_CLASS * (int(labels.max()) + 1))


def _folds(known: Arrays, held_out: Arrays | None, seed: int) -> list[Fold] | None:
    """What the search fits and scores on; None without images to score on."""
    features, labels = known
    if held_out is not None:
        return [(known, held_out)]
    fewest = int(np.bincount(labels).min())
    if fewest < 2:
        return None
    from sklearn.model_selection import StratifiedKFold

    folds = list(StratifiedKFold(min(5, fewest), shuffle=True, random_state=seed).split(features, labels))
    chosen = folds[:1] if _is_many(labels) else folds
    return [((features[fit], labels[fit]), (features[test], labels[test])) for fit, test in chosen]


class _Scores:
    """Correct predictions at strengths log10 C, or their weights; each is fitted once, several at a time."""

    def __init__(self, folds: Sequence[Fold], weights: Weights, *, many: bool) -> None:
        features, labels = folds[0][0]
        classes = int(labels.max()) + 1
        self.folds, self.weights = folds, weights
        self.fast = [FastLogistic(*fit, weights) for fit, _ in folds] if many and classes > 2 else []
        self.known: dict[Job, float] = {}
        room = LOGITS // (2 * labels.size * classes * labels.itemsize)
        self.threads = 1 if features.size * classes < LIGHT else max(1, min(torch.get_num_threads(), room))
        self.pool = ThreadPoolExecutor(self.threads, "daptune-logistic")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def __call__(self, exponents: Sequence[float], *, ahead: float | None = None) -> list[float]:
        """The score of each. With threads to spare, that of `ahead` is found besides, which comes next."""
        folds = range(len(self.folds))
        unknown = any((exponent, 0) not in self.known for exponent in exponents)
        more = [ahead] if ahead is not None and unknown and self.threads > 1 else []
        jobs = dict.fromkeys((exponent, fold) for exponent in [*exponents, *more] for fold in folds)
        missing = [job for job in jobs if job not in self.known]
        self.known.update(zip(missing, self.pool.map(self._score, missing), strict=True))
        return [sum(self.known[exponent, fold] for fold in folds) for exponent in exponents]

    def _score(self, job: Job) -> float:
        exponent, fold = job
        c, (fit, (images, truth)) = 10**exponent, self.folds[fold]
        if self.fast:
            weight, bias = self.fast[fold].optimum(c)
        else:
            weight, bias = _by_protocol(c, *fit, self.weights)
        hits = (images @ weight.T + bias).argmax(1) == truth
        return float(hits.sum() if self.weights is None else self.weights[truth][hits].sum())


def _first_best(score: _Scores, exponents: Sequence[float]) -> float:
    """The best one, the first on ties."""
    if len(exponents) == 1:
        return exponents[0]
    found = score(exponents)
    return exponents[found.index(max(found))]
