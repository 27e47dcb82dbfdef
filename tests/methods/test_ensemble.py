"""The ensemble's weights against a search on a grid, and its scores against plain loops, on uneven classes."""

import itertools

import numpy as np
import pytest
import torch

from daptune.methods.discriminant import Discriminant
from daptune.methods.ensemble import CENTRED, LEARNED, Ensemble, Seen, fit_ensemble

UNEVEN = np.repeat(np.arange(4), [2, 6, 1, 4])


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum(axis=1, keepdims=True))


def made_up(labels: np.ndarray, *, signal: float, seed: int = 0) -> tuple[Seen, np.ndarray]:
    """Images around class directions, a text side that knows them (signal 1) or does not (0), and random logits."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(4, 8))
    z = unit(directions[labels] + 0.9 * rng.normal(size=(len(labels), 8)))
    w0 = unit(signal * directions + (1 - signal) * rng.normal(size=(4, 8)))
    return Seen(z, rng.normal([3, 0, 0, 0], 1, (len(labels), 4)), labels), w0


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def by_hand(support: Seen, w0: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Spread and offset of each source, by loops."""
    found, spread, offset = Discriminant.fit(support.z, support.labels, len(w0)), {}, {}
    raw = {"text": support.z @ w0.T, "learned": support.logits}
    for name, scores in raw.items():
        offset[name] = CENTRED * np.mean([scores[support.labels == c].mean(axis=0) for c in range(len(w0))], axis=0)
        centred = [row - row.mean() for row in scores - offset[name]]
        spread[name] = float(np.sqrt(np.mean(np.square(centred))))
    out = found.left_out(support.z, support.labels)
    centred = [row - row.mean() for row in out if not np.isnan(row).any()]
    spread["support"] = float(np.sqrt(np.mean(np.square(centred))))
    return spread, offset


@pytest.mark.parametrize("signal", [1.0, 0.0])
def test_weights_are_the_mode_of_the_posterior(signal: float) -> None:
    support, w0 = made_up(UNEVEN, signal=signal)
    spread, offset = by_hand(support, w0)
    out = Discriminant.fit(support.z, UNEVEN, 4).left_out(support.z, UNEVEN)
    text = (support.z @ w0.T - offset["text"]) / spread["text"]
    held_out = np.nan_to_num(out) / spread["support"] * (13 - 4) / 13
    best = (-np.inf, (0.0, 0.0))
    for logs in itertools.product(np.linspace(-4, 2, 121), repeat=2):
        p = softmax(np.exp(logs[0]) * text + np.exp(logs[1]) * held_out)
        best = max(best, (float(np.log(p[np.arange(13), UNEVEN]).sum() - np.square(logs).sum() / 2), logs))
    a = fit_ensemble(support, w0).a
    assert np.log([a[0], a[1] / (1 - LEARNED)]) == pytest.approx(best[1], abs=0.05)  # the step of the grid
    assert a[2] == pytest.approx(a[1] * LEARNED / (1 - LEARNED))


def test_a_text_side_that_knows_nothing_counts_less() -> None:
    wise, blind = (fit_ensemble(*made_up(UNEVEN, signal=signal)).a[0] for signal in (1.0, 0.0))
    assert wise > 2 * blind


def test_scores_are_the_weighted_sum_of_the_sources() -> None:
    support, w0 = made_up(UNEVEN, signal=0.7)
    new, _ = made_up(np.array([3, 0, 1]), signal=0.7, seed=5)
    spread, offset = by_hand(support, w0)
    ensemble = fit_ensemble(support, w0)
    expected = (
        ensemble.a[0] * (new.z @ w0.T - offset["text"]) / spread["text"]
        + ensemble.a[1] * Discriminant.fit(support.z, UNEVEN, 4)(new.z) / spread["support"]
        + ensemble.a[2] * (new.logits - offset["learned"]) / spread["learned"]
    )
    found = ensemble(torch.tensor(new.z), torch.tensor(new.logits)).numpy()
    np.testing.assert_allclose(softmax(found), softmax(expected), atol=2e-3)  # float16 weights


def test_one_image_a_class_keeps_the_prior_of_the_support() -> None:
    labels = np.array([1, 3, 0, 2])
    support, w0 = made_up(labels, signal=1.0)
    ensemble = fit_ensemble(support, w0)
    assert ensemble.a[1:] == pytest.approx((1 - LEARNED, LEARNED))
    assert all(map(bool, ensemble(torch.tensor(support.z), torch.tensor(support.logits)).isfinite().flatten()))


def test_validation_images_judge_the_learned_prompt() -> None:
    support, w0 = made_up(np.repeat(np.arange(4), [3, 9, 2, 6]), signal=0.5)
    val, _ = made_up(np.repeat(np.arange(4), [10, 20, 5, 9]), signal=0.5, seed=0)
    good = Seen(val.z, 5 * np.eye(4)[val.labels], val.labels)
    assert fit_ensemble(support, w0, good).a[2] > 3 * fit_ensemble(support, w0, val).a[2]  # theirs are random


def test_weights_survive_float16() -> None:
    ensemble = fit_ensemble(*made_up(UNEVEN, signal=1.0))
    assert torch.equal(ensemble.weights, ensemble.weights.half().float())
    assert not ensemble.state_dict()  # the adapter stores them apart from what the method learned


def test_other_classes_keep_text_and_learned_prompt() -> None:
    ensemble = fit_ensemble(*made_up(UNEVEN, signal=1.0))
    w0, z, logits = torch.eye(8)[:2], torch.full((3, 8), 0.5), torch.tensor([[1.0, 2.0]] * 3)
    other = ensemble.with_classes(w0)
    expected = ensemble.text * z @ w0.T + ensemble.learned * logits
    torch.testing.assert_close(other(z, logits), expected, atol=2e-3, rtol=1e-3)
    assert other.a == (ensemble.a[0], 0.0, ensemble.a[2]) and isinstance(other, Ensemble)
