"""Held-out predictions become rows: mAP and the jackknife's standard error, by hand and by drawing images again."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from daptune.choose.comparison import Comparison, RankedRow
from daptune.choose.held_out import Rankings
from daptune.measured import Presence

SHARES = np.array([0.6, 0.4, 0.3, 0.2, 0.15])


def told(probabilities: NDArray[np.float64], labels: NDArray[np.bool_]) -> Presence:
    return Presence(probabilities.astype(np.float32), labels, thresholds=np.full(labels.shape[1], 0.5))


def by_hand(labels: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> float:
    """mAP over the classes with images."""
    there = labels.any(axis=0)
    return float(average_precision_score(labels[:, there], probabilities[:, there], average="macro"))


def test_the_images_of_all_folds_are_ranked_together() -> None:
    rng = np.random.default_rng(3)
    labels = rng.random((9, 3)) < [0.7, 0.5, 0.3]
    labels[:3] = True
    folds = [np.array([0, 4, 8]), np.array([1, 2, 5]), np.array([3, 6])]  # image 7 is never held out
    again = [np.array([8, 1]), np.array([0, 2, 3, 4, 5])]  # image 6 only once
    rankings, repeats = Rankings(labels), []
    for parts in (folds, again):
        seen, p = np.sort(np.concatenate(parts)), np.full((9, 3), np.nan)
        for held in parts:
            p[held] = rng.random((len(held), 3)).astype(np.float32)
            rankings.add(held, told(p[held], labels[held]))
        repeats.append((seen, p))
    row = rankings.row("m", 1.5)
    assert row.headline == pytest.approx(np.mean([by_hand(labels[seen], p[seen]) for seen, p in repeats]))
    values, likely = np.zeros((2, 9)), np.zeros((2, 9))
    for repeat, (seen, p) in enumerate(repeats):
        for image in seen:
            others = seen[seen != image]
            whole, without = by_hand(labels[seen], p[seen]), by_hand(labels[others], p[others])
            values[repeat, image] = len(seen) * whole - (len(seen) - 1) * without
            likely[repeat, image] = np.log(np.where(labels[image], p[image], 1 - p[image])).mean()
    times = np.array([2, 2, 2, 2, 2, 2, 1, 0, 2])
    kept = times > 0
    np.testing.assert_allclose(row.correct, (values.sum(axis=0) / np.maximum(times, 1))[kept])
    np.testing.assert_allclose(row.log_likelihood, (likely.sum(axis=0) / np.maximum(times, 1))[kept], rtol=1e-5)
    assert row.error == pytest.approx(np.std(row.correct, ddof=1) / 8**0.5) and row.seconds == 1.5


def test_the_standard_error_is_how_far_new_images_move_the_map() -> None:
    """Of 150 images drawn 150 times, unbalanced: the errors that are told are those that are seen, within a quarter."""
    rng, found = np.random.default_rng(0), []
    for _ in range(150):
        labels = rng.random((150, 5)) < SHARES
        shared = rng.normal(size=labels.shape)
        rows: list[RankedRow] = []
        for mixed in (shared + labels, 0.7 * shared + 0.7 * rng.normal(size=labels.shape) + 1.2 * labels):
            rankings = Rankings(labels)
            rankings.add(np.arange(150), told(1 / (1 + np.exp(-mixed)), labels))
            rows.append(rankings.row("m", 0.0))
        found.append((rows[0].headline, rows[0].error, *rows[0].behind(rows[1])))
    figure, error, gap, of_gap = np.array(found).T
    assert 0.75 < error.mean() / figure.std() < 1.25
    assert 0.75 < of_gap.mean() / gap.std() < 1.25 and of_gap.mean() < 0.9 * 2**0.5 * error.mean()


def test_a_single_image_with_a_class_says_nothing_of_the_error() -> None:
    labels = np.array([[False], [True], [False]])
    rows = []
    for scores in ([[0.1], [0.9], [0.2]], [[0.9], [0.5], [0.6]]):
        rankings = Rankings(labels)
        rankings.add(np.arange(3), told(np.array(scores), labels))
        rows.append(rankings.row("m", 0.0))
    assert [row.headline for row in rows] == pytest.approx([1, 1 / 3]) and rows[0].error == math.inf
    assert Comparison((rows[1], rows[0]), "").chosen is rows[1]  # nothing tells them apart


def test_a_class_without_images_says_nothing() -> None:
    labels = np.array([[True, False], [False, False], [True, False]])
    rankings = Rankings(labels)
    rankings.add(np.arange(3), told(np.array([[0.9, 0.8], [0.5, 0.9], [0.4, 0.7]]), labels))
    assert rankings.row("m", 0.0).headline == pytest.approx((1 + 2 / 3) / 2)
