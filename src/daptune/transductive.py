"""TransCLIP: the classes of a whole set of unlabelled images at once, from any classifier's probabilities.

Zanella, Gérin & Ben Ayed, "Boosting Vision-Language Models with Transduction", NeurIPS 2024, arXiv 2406.01837.
Official: MaxZanella/transduction-for-vlms (AGPL-3; written from the formulas, none of its code was used).

Q images with unit features x_q (D,) and prior probabilities p_q (K,); with support, S labelled images s, y one-hot.
z_q, the assignment of an image, starts at p_q; m_c (K, D) are class means and v (D,) the variance that they share.

    z_q ~ p_q^lambda exp(-sum_k (x_qk - m_ck)^2 / (2 v_k TEMPER) + (sum of its neighbours' z) / (2 NEIGHBOURS))
    m_c ~ sum_q z_qc x_q / Q + TEMPER gamma / S sum_s y_sc s, unit
    v_k = (sum_qc z_qc (x_qk - m_ck)^2 / Q + TEMPER gamma / S sum_sc y_sc (s_k - m_ck)^2) / (1 + TEMPER gamma)

ROUNDS times (z, INNER times over; m; v), then z once more. The neighbours of an image are the NEIGHBOURS images most
similar to it and, once more, those that it is a neighbour of, each weighted by the cosine; labelled images count too.

Differences to the official code: assignments of neighbours are those of the neighbours (`official_rows`); the prior
stays what it was (`official_prior`); a labelled image keeps its most similar image (`official_nearest`); each gamma
starts anew, and the answer is that of the best; memory is O(Q K), with no matrix of Q x Q or Q x K x D numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # a dependency of scikit-learn

from daptune.methods.options import Fits, MethodConfig, Weight

TEMPER = 50.0
NEIGHBOURS = 3
ROUNDS, INNER = 10, 5
FIRST = 8
"""Images that the first mean of a class without labelled ones is made of: the most probable."""
CHUNK = 1 << 22
"""Numbers of a large matrix that are computed at once."""
_TINY = float(np.finfo(np.float32).tiny)
_FLAT = 1e-12  # variance of a dimension in which all images are the same
Floats = NDArray[np.floating[Any]]
GAMMAS = Fits(lambda values: min(values, default=-1) >= 0, "one or more numbers of at least 0")
Labelled = tuple[Floats, NDArray[np.int64]]
"""Unit features (S, D) and labels (S,)."""


@dataclass(frozen=True)
class TransductiveConfig(MethodConfig):
    """Options of TransCLIP; the defaults are the paper's."""

    prior_weight: Weight = 1.0
    """lambda, the weight of the prior, without labelled images."""
    labelled_prior_weight: Weight = 0.5
    """lambda with labelled images."""
    gammas: Annotated[tuple[float, ...], GAMMAS] = (0.002, 0.01, 0.02, 0.2)
    """Weights of the labelled images to compare by validation images."""
    gamma: Weight = 0.02
    """Their weight without validation images: labelled images count as much as the set (TEMPER gamma = 1)."""
    official_rows: bool = False
    """As the official code: with labelled images, neighbours' assignments are read from the wrong rows."""
    official_prior: bool = False
    """As the official code on top of another method: the prior is overwritten by the current assignment."""
    official_nearest: bool = False
    """As the official code: the most similar image of a labelled image is taken for itself and left out."""


@dataclass(frozen=True, eq=False)
class Transduced:
    """What `transduce` found: z (Q, K), rows that sum to 1; m (K, D); v (D,); lambda; gamma, 0 without support."""

    assignments: NDArray[np.float32]
    means: Floats
    variance: Floats
    prior_weight: float
    gamma: float

    @property
    def rule(self) -> tuple[Floats, Floats]:
        """W (K, D) and b (K,) for images outside the set: p^lambda exp(x W^T + b), normalised; without neighbours.

        Less their means over the classes, which changes no probability.
        """
        weights, bias = _likelihood(self.means, self.variance)
        return weights - weights.mean(axis=0), bias - bias.mean()


@dataclass(frozen=True, eq=False)
class _Graph:
    """What an image's neighbours add: near (Q, Q) @ z + fixed (Q, K), sparse; the latter from labelled images."""

    near: Any
    fixed: Any

    def pull(self, rows: slice, z: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self.near[rows] @ z
        if self.fixed is not None:
            found += self.fixed[rows].toarray()
        found /= 2 * NEIGHBOURS
        return found


def transduce(
    features: NDArray[np.float32],
    prior: NDArray[np.float32],
    support: Labelled | None = None,
    val: Labelled | None = None,
    config: TransductiveConfig | None = None,
) -> Transduced:
    """Solve for unit features (Q, D) and prior probabilities (Q, K). Memory: three times that of the prior.

    `val` chooses gamma: an image of it has the class of the most similar one of the set.
    """
    config = TransductiveConfig() if config is None else config
    graph = _graph(features, prior.shape[1], support, config)
    start = _first_means(features, prior, support)
    problem = _Problem(features, prior, support, graph, start, config)
    if support is None:
        return problem.solve(0.0)
    if val is None:
        return problem.solve(config.gamma)
    nearest = np.concatenate([(val[0][rows] @ features.T).argmax(axis=1) for rows in _chunks(val[0], len(features))])

    def right(found: Transduced) -> int:
        return int((found.assignments[nearest].argmax(axis=1) == val[1]).sum())

    return max(map(problem.solve, config.gammas), key=right)  # the first on ties


@dataclass(frozen=True, eq=False)
class _Problem:
    features: NDArray[np.float32]
    prior: NDArray[np.float32]
    support: Labelled | None
    graph: _Graph
    start: Floats
    config: TransductiveConfig

    def solve(self, gamma: float) -> Transduced:
        weight = self.config.prior_weight if self.support is None else self.config.labelled_prior_weight
        middle = self.features.mean(axis=0, dtype=np.float64)  # variances are computed around it, for precision
        means, variance = self.start, np.full(len(middle), 1 / len(middle))
        z, other, spare = self.prior, np.empty_like(self.prior), np.empty_like(self.prior)
        for done in range(ROUNDS + 1):
            rule = _likelihood(means - middle, variance)
            for _ in range(INNER):
                self._assign(z, rule, middle, weight, out=other)
                z, other, spare = other, spare, other
            if done < ROUNDS:
                means, variance = _estimate(self.features, z, self.support, middle, gamma, means)
        return Transduced(z, means, variance, weight, gamma)

    def _assign(
        self, z: NDArray[np.float32], rule: tuple[Floats, Floats], middle: Floats, weight: float, out: Floats
    ) -> None:
        """One round of assignments from those before, z."""
        weights, bias, centre = (part.astype(np.float32) for part in (*rule, middle))
        given = z if self.config.official_prior else self.prior
        for rows in _chunks(z, z.shape[1]):
            scores = (self.features[rows] - centre) @ weights.T
            scores += bias
            scores += self.graph.pull(rows, z)
            scores += np.float32(weight) * np.log(np.maximum(given[rows], _TINY))
            scores -= scores.max(axis=1, keepdims=True)
            np.exp(scores, out=scores)
            np.divide(scores, scores.sum(axis=1, keepdims=True), out=out[rows])


def _likelihood(means: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """W (K, D), b (K,): x W^T + b is -sum_k (x_k - m_ck)^2 / (2 v_k TEMPER) but for a constant of each image."""
    weights = means / variance / TEMPER
    return weights, -0.5 * (weights * means).sum(axis=1)


def _moments(features: Floats, z: Any, middle: Floats) -> tuple[Floats, Floats, Floats]:
    """sum_q z_qc (K,); sum_q z_qc f_q (K, D) and sum_q f_q^2 (D,) of f = features - middle."""
    size, classes = features.shape[1], z.shape[1]
    counts, sums, squares = np.zeros(classes), np.zeros((classes, size)), np.zeros(size)
    for rows in _chunks(features, max(classes, size)):
        around, share = features[rows] - middle.astype(np.float32), z[rows]
        counts += np.asarray(share.sum(axis=0, dtype=np.float64)).ravel()
        sums += share.T @ around
        squares += np.square(around, dtype=np.float64).sum(axis=0)
    return counts, sums, squares


def _estimate(
    features: Floats, z: Floats, support: Labelled | None, middle: Floats, gamma: float, means: Floats
) -> tuple[Floats, Floats]:
    """m (K, D) and v (D,) for assignments; a class that no image has keeps its mean."""
    parts = [(1 / len(features), *_moments(features, z, middle))]
    if support is not None:
        own = _one_hot(support[1], z.shape[1])
        parts.append((TEMPER * gamma / len(own.indices), *_moments(support[0], own, middle)))
    sums = sum(share * (own + np.outer(counts, middle)) for share, counts, own, _ in parts)
    size = np.linalg.norm(sums, axis=1, keepdims=True)
    means = np.where(size > 0, sums / np.where(size > 0, size, 1), means)
    around, variance = means - middle, np.zeros(len(middle))
    for share, counts, own, squares in parts:
        variance += share * (squares - 2 * (around * own).sum(axis=0) + counts @ around**2)
    return means, np.maximum(variance / (1 + TEMPER * gamma), _FLAT)


def _first_means(features: Floats, prior: Floats, support: Labelled | None) -> Floats:
    """Of the labelled images of a class, or else of its FIRST most probable images, weighted by probability."""
    count = min(FIRST, len(prior))
    means = np.empty((prior.shape[1], features.shape[1]))
    for classes in _chunks(means, len(prior)):
        columns = prior[:, classes].T
        top = np.argpartition(columns, -count, axis=1)[:, -count:]
        share = np.maximum(np.take_along_axis(columns, top, axis=1).astype(np.float64), _TINY)
        share /= share.max(axis=1, keepdims=True)
        means[classes] = np.einsum("ct,ctd->cd", share, features[top])
    if support is not None:
        own = _one_hot(support[1], len(means)).T @ support[0]
        there = np.unique(support[1])
        means[there] = own[there]
    size = np.linalg.norm(means, axis=1, keepdims=True)
    found: Floats = means / np.where(size > 0, size, 1)
    return found


def _graph(features: Floats, classes: int, support: Labelled | None, config: TransductiveConfig) -> _Graph:
    rows = [_neighbours(features, features, "self")]
    if support is not None:
        rows.append(_neighbours(support[0], features, "nearest" if config.official_nearest else ""))
    ordered = sparse.vstack(rows[::-1] if config.official_rows else rows, format="csr")
    count = len(features)
    back = ordered.T.tocsr()
    near = (back[:, :count] + ordered[:count]).tocsr()
    fixed = None if support is None else (back[:, count:] @ _one_hot(support[1], classes)).tocsr()
    return _Graph(near, fixed)


def _neighbours(rows: Floats, features: Floats, without: str) -> Any:
    """Cosines of each row to its most similar features, sparse (n, Q); `without` "self" or the "nearest"."""
    count = min(NEIGHBOURS, len(features) - bool(without))
    columns, values = [], []
    for part in _chunks(rows, len(features)):
        cosines = rows[part] @ features.T
        here = np.arange(len(cosines))
        if without:
            cosines[here, here + part.start if without == "self" else cosines.argmax(axis=1)] = -np.inf
        top = np.argpartition(cosines, -count, axis=1)[:, len(features) - count :]
        columns.append(top.astype(np.int32))
        values.append(np.take_along_axis(cosines, top, axis=1).astype(np.float32))
    ends = count * np.arange(len(rows) + 1)
    return sparse.csr_matrix(
        (np.concatenate(values).ravel(), np.concatenate(columns).ravel(), ends), shape=(len(rows), len(features))
    )


def _one_hot(labels: NDArray[np.int64], classes: int) -> Any:
    ones = np.ones(len(labels), np.float32)
    return sparse.csr_matrix((ones, labels, np.arange(len(labels) + 1)), shape=(len(labels), classes))


def _chunks(rows: Any, width: int) -> Iterator[slice]:
    """Slices of rows, each of which makes at most CHUNK numbers of `width` each."""
    size = max(1, CHUNK // max(width, 1))
    for start in range(0, len(rows), size):
        yield slice(start, min(start + size, len(rows)))
