"""TransCLIP is its formulas, by plain loops over images, classes and dimensions; and what the official code does."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from daptune import transductive
from daptune.errors import MethodError
from daptune.transductive import TransductiveConfig, transduce


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax(scores: Any) -> Any:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


SIZES, SHOTS = (17, 4, 9, 1), (3, 1, 5, 2)
"""Images and labelled images of each class: unbalanced, and one class with a single image."""


def made_up(seed: int, sizes: Any = SIZES, size: int = 6, noise: float = 0.6) -> tuple[Any, Any, Any, Any]:
    """Features x (Q, D), a prior that is often wrong (Q, K), labelled images and validation images."""
    rng = np.random.default_rng(seed)
    classes, common = len(sizes), rng.normal(size=size)
    centres = common + rng.normal(size=(classes, size))
    labels = rng.permutation(np.repeat(np.arange(classes), sizes))

    def images(of: Any) -> Any:
        return unit(centres[of] + noise * rng.normal(size=(len(of), size))).astype(np.float32)

    x, words = images(labels), unit(centres + 0.8 * rng.normal(size=centres.shape))
    own, held = np.repeat(np.arange(classes), SHOTS[:classes]), rng.permutation(np.repeat(np.arange(classes), 3))
    return x, softmax(12 * x @ words.T).astype(np.float32), (images(own), own), (images(held), held)


def by_hand(x: Any, given: Any, support: Any = None, gamma: float = 0.0, weight: float = 1.0, **official: bool) -> Any:
    """z, m and v of the formulas in float64, a number at a time."""
    x, p = x.astype(np.float64), given.astype(np.float64)
    (count, size), classes = x.shape, p.shape[1]
    s, of = (np.zeros((0, size)), np.zeros(0, int)) if support is None else (support[0].astype(np.float64), support[1])
    y = np.array([[float(of[i] == c) for c in range(classes)] for i in range(len(s))]).reshape(-1, classes)

    def affinities(row: Any, left_out: int | None) -> dict[int, float]:
        cosines = [float(sum(a * b for a, b in zip(row, other, strict=True))) for other in x]
        order = sorted(range(count), key=lambda place: -cosines[place])
        if left_out == -1:
            order = order[1:]
        elif left_out is not None:
            order.remove(left_out)
        return {place: cosines[place] for place in order[:3]}

    queries = [affinities(row, place) for place, row in enumerate(x)]
    labelled = [affinities(row, -1 if official.get("nearest") else None) for row in s]
    stacked = [*labelled, *queries] if official.get("rows") else [*queries, *labelled]
    if support is None:
        m = []
        for c in range(classes):
            top = sorted(range(count), key=lambda q: -p[q, c])[:8]
            m.append(sum(p[q, c] * x[q] for q in top) / len(top))
        m = unit(np.array(m))
    else:
        m = unit(np.array([sum(s[i] for i in range(len(s)) if of[i] == c) for c in range(classes)]))
    v, z = np.full(size, 1 / size), p.copy()
    for done in range(11):
        for _ in range(5):
            assigned = np.concatenate([z, y])
            scores = np.empty((count, classes))
            for q, c in product(range(count), range(classes)):
                distance = sum((x[q, k] - m[c][k]) ** 2 / v[k] for k in range(size))
                own = sum(a * z[place, c] for place, a in stacked[q].items())
                other = sum(row[q] * assigned[place, c] for place, row in enumerate(stacked) if q in row)
                before = (z if official.get("prior") else p)[q, c]
                scores[q, c] = weight * np.log(before) - distance / 2 / 50 + (own + other) / 6
            z = softmax(scores)
        if done == 10:
            break
        share = 50 * gamma / len(s) if len(s) else 0.0
        sums = []
        for c in range(classes):
            ours = sum(s[i] for i in range(len(s)) if of[i] == c)
            sums.append(sum(z[q, c] * x[q] for q in range(count)) / count + share * ours)
        m = unit(np.array(sums))
        for k in range(size):
            mean = sum(z[q, c] * (x[q, k] - m[c][k]) ** 2 for q in range(count) for c in range(classes)) / count
            ours = share * sum((s[i, k] - m[of[i]][k]) ** 2 for i in range(len(s)))
            v[k] = (mean + ours) / (1 + 50 * gamma)
    return z, m, v


def check(found: Any, expected: Any) -> None:
    z, m, v = expected
    np.testing.assert_allclose(found.assignments, z, atol=1e-5)
    np.testing.assert_allclose(found.means, m, atol=1e-5)
    np.testing.assert_allclose(found.variance, v, atol=1e-5)
    assert found.assignments.dtype == np.float32
    np.testing.assert_allclose(found.assignments.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.means, axis=1), 1, atol=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_without_labelled_images_it_is_the_formulas(seed: int, weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x, prior, _, _ = made_up(seed)
    before = prior.copy()
    monkeypatch.setattr(transductive, "CHUNK", 40)  # a few rows at a time
    found = transduce(x, prior, config=TransductiveConfig(prior_weight=weight))
    check(found, by_hand(x, prior, weight=weight))
    assert found.gamma == 0 and np.array_equal(prior, before)
    assert (found.assignments.argmax(1) != prior.argmax(1)).any()  # it says something


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("gamma", [0.002, 0.2])
def test_with_labelled_images_it_is_the_formulas(seed: int, gamma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x, prior, support, _ = made_up(seed)
    monkeypatch.setattr(transductive, "CHUNK", 40)
    found = transduce(x, prior, support, config=TransductiveConfig(gamma=gamma))
    check(found, by_hand(x, prior, support, gamma, 0.5))


@pytest.mark.parametrize("option", ["rows", "prior", "nearest"])
def test_what_the_official_code_does_is_an_option(option: str) -> None:
    x, prior, support, _ = made_up(2)
    config = TransductiveConfig(**{f"official_{option}": True})
    found = transduce(x, prior, support, config=config)
    check(found, by_hand(x, prior, support, 0.02, 0.5, **{option: True}))
    plain = transduce(x, prior, support).assignments
    assert np.abs(found.assignments - plain).max() > 1e-3


def test_the_official_prior_without_labelled_images() -> None:
    x, prior, _, _ = made_up(3)
    found = transduce(x, prior, config=TransductiveConfig(official_prior=True))
    check(found, by_hand(x, prior, prior=True))
    assert np.abs(found.assignments - transduce(x, prior).assignments).max() > 1e-3


def test_the_rows_of_neighbours_change_nothing_without_labelled_images() -> None:
    x, prior, _, _ = made_up(3)
    found = transduce(x, prior, config=TransductiveConfig(official_rows=True, official_nearest=True))
    np.testing.assert_array_equal(found.assignments, transduce(x, prior).assignments)


def test_gamma_by_validation_images_is_the_first_of_the_best_and_each_starts_anew() -> None:
    chosen = set()
    for seed in range(8):
        x, prior, support, val = made_up(seed, noise=1.1)
        gammas = (0.0, 0.02, 2.0)
        right = []
        for gamma in gammas:
            z, _, _ = by_hand(x, prior, support, gamma, 0.5)
            nearest = [max(range(len(x)), key=lambda q, row=row: float(row @ x[q])) for row in val[0]]
            right.append(sum(int(z[q].argmax() == label) for q, label in zip(nearest, val[1], strict=True)))
        found = transduce(x, prior, support, val, TransductiveConfig(gammas=gammas))
        assert found.gamma == gammas[right.index(max(right))]
        check(found, by_hand(x, prior, support, found.gamma, 0.5))
        chosen.add(found.gamma)
    assert len(chosen) > 1


def test_the_rule_for_other_images_is_the_likelihood_without_neighbours() -> None:
    x, prior, support, (new, _) = made_up(4)
    found = transduce(x, prior, support)
    weights, bias = found.rule
    scores = new @ weights.T + bias
    expected = np.array([[-(((row - m) ** 2) / found.variance).sum() / 100 for m in found.means] for row in new])
    np.testing.assert_allclose(softmax(scores), softmax(expected), atol=1e-9)


def test_few_images_and_equal_images_and_a_class_without_any() -> None:
    x, prior, support, _ = made_up(5)
    for count in (1, 2, 3, 5):
        check(transduce(x[:count], prior[:count], support), by_hand(x[:count], prior[:count], support, 0.02, 0.5))
        check(transduce(x[:count], prior[:count]), by_hand(x[:count], prior[:count]))
    same = transduce(np.repeat(x[:1], 9, axis=0), np.repeat(prior[:1], 9, axis=0))
    assert np.isfinite(same.assignments).all() and np.isfinite(same.rule[0]).all()
    sure = np.eye(4, dtype=np.float32)[np.arange(9) % 3]  # nothing is of class 3
    found = transduce(x[:9], sure, config=TransductiveConfig(prior_weight=4.0))
    assert np.isfinite(found.means).all() and not found.assignments[:, 3].any()
    assert np.allclose(np.linalg.norm(found.means, axis=1), 1)  # the mean of class 3 is its first one
    kept = np.isin(support[1], (0, 2))  # classes 1 and 3 have no labelled images
    found = transduce(x, prior, (support[0][kept], support[1][kept]))
    assert np.isfinite(found.assignments).all() and np.allclose(np.linalg.norm(found.means, axis=1), 1)


def test_bad_options_are_told() -> None:
    for options in ({"gammas": ()}, {"gamma": -1.0}, {"prior_weight": -0.5}, {"official_rows": 1.5}):
        with pytest.raises(MethodError, match=next(iter(options))):
            TransductiveConfig(**options)
