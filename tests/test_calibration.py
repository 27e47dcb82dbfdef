"""Temperatures against a search on a grid; they are applied only where other images become more likely."""

import math

import numpy as np
import pytest

from daptune.calibration import LIMITS, Calibration, calibrate, fit_temperature, scaled
from daptune.metrics import expected_calibration_error


def made_up(count: int, sharpness: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(logits / sharpness), of uneven classes: the right temperature is `sharpness`."""
    rng = np.random.default_rng(seed)
    true = rng.normal([1.0, 0.0, -0.5, 0.0], 1.5, (count, 4))
    p = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(4, p=row) for row in p])
    return labels, sharpness * true


def loss(labels: np.ndarray, logits: np.ndarray, temperature: float) -> float:
    """Mean negative log-likelihood, image by image."""
    total = 0.0
    for label, row in zip(labels, logits / temperature, strict=True):
        total += math.log(sum(math.exp(value - row[label]) for value in row))
    return total / len(labels)


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 5.0])
def test_the_temperature_is_the_likeliest_of_a_grid(sharpness: float) -> None:
    labels, logits = made_up(300, sharpness)
    grid = np.exp(np.linspace(*np.log(LIMITS), 400))
    best = grid[np.argmin([loss(labels, logits, t) for t in grid])]
    assert fit_temperature(labels, logits) == pytest.approx(best, rel=0.016)  # the step of the grid
    assert best == pytest.approx(sharpness, rel=0.25)


def test_scaled_is_the_softmax() -> None:
    assert scaled([[0.0, math.log(9)]], 2)[0] == pytest.approx([0.25, 0.75])  # exp(log(9) / 2) = 3
    assert scaled([[3e5, 0.0]], 0.1)[0].tolist() == [1, 0]


def test_errors_are_measured_on_the_other_half() -> None:
    """Every other image of each class is a half; each at the temperature of the other."""
    labels, logits = made_up(240, 4.0)
    half, seen = np.empty(240, dtype=int), [0] * 4
    place = 0
    for label in range(4):
        for row in np.flatnonzero(labels == label):
            half[row], place = place % 2, place + 1
            seen[label] += 1
    assert len(set(seen)) == 4  # uneven
    p = np.empty((240, 4))
    for side in (0, 1):
        p[half == side] = scaled(logits[half == side], fit_temperature(labels[half != side], logits[half != side]))
    found = calibrate(labels, logits)
    assert found.temperature == pytest.approx(fit_temperature(labels, logits), abs=1e-4) and found.images == 240
    assert found.after == pytest.approx(expected_calibration_error(labels, p))
    assert found.before == pytest.approx(expected_calibration_error(labels, scaled(logits, 1)))
    assert found.before > 0.2 > 0.15 > found.after
    after = -np.log(p[np.arange(240), labels]).mean()
    assert [found.nll_before, found.nll_after] == pytest.approx([loss(labels, logits, 1), after])
    assert found.text == (
        f"{found.temperature:.2f}: negative log-likelihood {loss(labels, logits, 1):.2f} -> {after:.2f} on 240 "
        "validation images"
    )


def test_a_temperature_that_does_not_carry_over_is_not_applied() -> None:
    """One half is always right with little confidence and wants 0.05, the other always wrong and wants 20."""
    labels, logits = np.zeros(20, dtype=int), np.tile([[0.5, -0.5], [-0.5, 0.5]], (10, 1))
    assert fit_temperature(labels[::2], logits[::2]) < 0.06 and fit_temperature(labels[1::2], logits[1::2]) > 19
    found = calibrate(labels, logits)
    assert found.temperature == 1 and found.before == found.after and found.images == 20
    assert found.nll_before == found.nll_after == pytest.approx(loss(labels, logits, 1))
    assert found.text.startswith("1: negative log-likelihood ") and "on 20 validation images" in found.text


def test_calibrated_probabilities_stay_as_they_are() -> None:
    changes = [calibrate(*made_up(400, 1.0, seed)).temperature for seed in range(8)]
    assert changes.count(1.0) >= 2 and max(abs(math.log(t)) for t in changes) < 0.25


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_images_are_no_error(count: int) -> None:
    labels, logits = made_up(count, 3.0)
    found = calibrate(labels, logits)
    assert isinstance(found, Calibration) and LIMITS[0] <= found.temperature <= LIMITS[1]
    assert count > 1 or found.temperature == 1
