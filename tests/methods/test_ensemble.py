"""The ensemble's weights against a search on a grid, and its scores against plain loops, on uneven classes."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from daptune.errors import MethodError
from daptune.evaluate import seen_by
from daptune.methods import METHODS
from daptune.methods import ensemble as module
from daptune.methods.discriminant import Discriminant
from daptune.methods.ensemble import CENTRED, LEARNED, Ensemble, Mix, Seen, fit_ensemble
from daptune.methods.templates import template_features

from .conftest import NAMES, Pictures

UNEVEN = np.repeat(np.arange(4), [2, 6, 1, 4])
TEMPLATES = ("a photo of a {}.",)


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
    for logs in itertools.product(np.linspace(-8, 2, 201), np.linspace(-2, 2, 81)):
        p = softmax(np.exp(logs[0]) * text + np.exp(logs[1]) * held_out)
        prior = (logs[0] / (3 if logs[0] < 0 else 1)) ** 2 / 2 + logs[1] ** 2 / 2  # text's is wider below 1
        best = max(best, (float(np.log(p[np.arange(13), UNEVEN]).sum() - prior), logs))
    a = fit_ensemble(support, w0, templates=TEMPLATES).mix.a
    assert np.log([a[0], a[1] / (1 - LEARNED)]) == pytest.approx(best[1], abs=0.05)  # the step of the grid
    assert a[2] == pytest.approx(a[1] * LEARNED / (1 - LEARNED))


def test_a_text_side_that_knows_nothing_counts_less() -> None:
    wise, blind = (fit_ensemble(*made_up(UNEVEN, signal=signal), templates=TEMPLATES).mix.a[0] for signal in (1.0, 0.0))
    assert wise > 2 * blind


def test_scores_are_the_weighted_sum_of_the_sources() -> None:
    support, w0 = made_up(UNEVEN, signal=0.7)
    new, _ = made_up(np.array([3, 0, 1]), signal=0.7, seed=5)
    spread, offset = by_hand(support, w0)
    ensemble = fit_ensemble(support, w0, templates=TEMPLATES)
    expected = (
        ensemble.mix.a[0] * (new.z @ w0.T - offset["text"]) / spread["text"]
        + ensemble.mix.a[1] * Discriminant.fit(support.z, UNEVEN, 4)(new.z) / spread["support"]
        + ensemble.mix.a[2] * (new.logits - offset["learned"]) / spread["learned"]
    )
    found = ensemble(torch.tensor(new.z).float(), torch.tensor(new.logits).float()).numpy()
    np.testing.assert_allclose(softmax(found), softmax(expected), atol=2e-3)  # float16 weights


def test_one_image_a_class_keeps_the_prior_of_the_support() -> None:
    labels = np.array([1, 3, 0, 2])
    support, w0 = made_up(labels, signal=1.0)
    ensemble = fit_ensemble(support, w0, templates=TEMPLATES)
    assert ensemble.mix.a[1:] == pytest.approx((1 - LEARNED, LEARNED))
    scores = ensemble(torch.tensor(support.z).float(), torch.tensor(support.logits).float())
    assert bool(scores.isfinite().all())


def test_identical_images_do_not_make_weights_of_rounding_errors() -> None:
    """Of one image in four classes the support scores are equal: only the text and the learned prompt differ."""
    support, w0 = made_up(np.array([0]), signal=1.0)
    same = Seen(support.z.repeat(4, 0) + np.eye(4, 8) * 1e-15, support.logits.repeat(4, 0), np.arange(4))
    ensemble = fit_ensemble(same, w0, templates=TEMPLATES)
    assert ensemble.mix.factors[1] == pytest.approx(ensemble.mix.a[1])  # a spread of 1
    assert bool(ensemble.weights.isfinite().all())


def test_weights_stay_within_float16() -> None:
    mix = Mix((1, 1, 1), (1, 1, 1), TEMPLATES)
    large = torch.tensor([[1e30, -1e6, 3.0]])
    assert Ensemble(large, torch.zeros(1), torch.zeros(0, 3), mix).weights.tolist() == [[65504, -65504, 3]]


def test_validation_images_judge_the_learned_prompt() -> None:
    support, w0 = made_up(np.repeat(np.arange(4), [3, 9, 2, 6]), signal=0.5)
    val, _ = made_up(np.repeat(np.arange(4), [10, 20, 5, 9]), signal=0.5, seed=0)
    good = Seen(val.z, 5 * np.eye(4)[val.labels], val.labels)
    wise, random = (fit_ensemble(support, w0, seen, templates=TEMPLATES).mix.a[2] for seen in (good, val))
    assert wise > 3 * random


def test_of_many_images_evenly_spaced_ones_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 13 images with at most 7, every second one; the first and the last are among them."""
    support, w0 = made_up(UNEVEN, signal=0.7)
    judged: list[np.ndarray] = []
    mode = module._posterior_mode
    monkeypatch.setattr(module, "MOST_JUDGED", 7)
    monkeypatch.setattr(module, "_posterior_mode", lambda scores, labels: judged.append(labels) or mode(scores, labels))
    fit_ensemble(support, w0, templates=TEMPLATES)
    assert judged[0].tolist() == UNEVEN[::2].tolist()


def test_weights_survive_float16() -> None:
    ensemble = fit_ensemble(*made_up(UNEVEN, signal=1.0), templates=TEMPLATES)
    assert torch.equal(ensemble.weights, ensemble.weights.half().float())
    assert not ensemble.state_dict()  # the adapter stores them apart from what the method learned


def test_other_classes_keep_text_and_learned_prompt(backbone: Any) -> None:
    width = backbone.clip.config.embed_dim
    mix = Mix((0.9, 1.5, 0.5), (2.0, 3.0, 0.25), ("a {} at sea.", "one {}."))
    ensemble = Ensemble(torch.randn(4, width), torch.randn(4), torch.randn(4, width), mix)
    other = ensemble.with_classes(backbone, ["gull", "boat"])
    w0 = template_features(backbone, ["gull", "boat"], mix.templates)
    z, logits = torch.randn(3, width), torch.randn(3, 2)
    torch.testing.assert_close(other(z, logits), 2 * z @ w0.T + 0.25 * logits, atol=5e-3, rtol=1e-3)  # float16 weights
    assert other.mix == Mix((0.9, 0.0, 0.5), (2.0, 0.0, 0.25), mix.templates)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"a": (1, 2)}, "a: expected a number of at least 0 for each of"),
        ({"a": (1, 2, -0.1)}, "a: expected"),
        ({"factors": (1, 2, math.nan)}, "factors: expected"),
        ({"factors": (1, math.inf, 2)}, "factors: expected"),
        ({"factors": ("1", 2, 3)}, "factors: expected"),
        ({"templates": ()}, "templates: expected texts with one {}"),
        ({"templates": ("a photo",)}, "templates: expected texts with one {}"),
        ({"templates": ("a {} of {}",)}, "templates: expected texts with one {}"),
        ({"templates": "a {}."}, "templates: expected texts with one {}"),
        ({"templates": (3,)}, "templates: expected texts with one {}"),
    ],
)
def test_a_mix_of_another_kind_is_refused(change: dict[str, Any], fault: str) -> None:
    right = {"a": (1, 2, 3), "factors": (1, 2, 3), "templates": ("a {}.",)}
    assert Mix(**right).a == (1.0, 2.0, 3.0)
    with pytest.raises(MethodError) as error:
        Mix(**right | change)
    assert str(error.value).startswith(fault) and "\n" not in str(error.value)


def test_what_a_method_sees(backbone: Any, uneven: Pictures) -> None:
    """Features and logits of each image, one at a time."""
    method = METHODS["coop_vpt"](backbone, NAMES).eval()
    seen = seen_by(method, uneven.evaluation())
    assert seen.labels.tolist() == uneven.labels.tolist()
    with torch.no_grad():
        for row, image in enumerate(uneven.images):
            z = backbone.clip.encode_image(image[None], method.image_prompts())[0].double().numpy()
            np.testing.assert_allclose(seen.z[row], z / np.sqrt((z**2).sum()), atol=1e-5)
            np.testing.assert_allclose(seen.logits[row], method.logits(image[None])[0].numpy(), atol=1e-3)


def test_known_images_are_left_out_of_what_they_are_compared_with() -> None:
    support, w0 = made_up(np.repeat(np.arange(4), [3, 6, 2, 5]), signal=0.6)
    expected = []
    for i in range(16):
        cosines = []
        for c in range(4):
            mean = support.z[(support.labels == c) & (np.arange(16) != i)].mean(axis=0)
            cosines.append(support.z[i] @ mean / np.sqrt(mean @ mean))
        expected.append(max(cosines))
    mix = fit_ensemble(support, w0, templates=TEMPLATES).mix
    np.testing.assert_allclose(mix.similarity, sorted(expected), atol=1e-5)  # five digits are kept
    assert len(mix.truth) == 16 and list(mix.truth) == sorted(mix.truth) and 0 <= mix.truth[0] <= mix.truth[-1] <= 1


def test_validation_images_say_what_known_images_look_like() -> None:
    support, w0 = made_up(UNEVEN, signal=0.6)
    val, _ = made_up(np.repeat(np.arange(4), [5, 2, 4, 3]), signal=0.6, seed=9)
    ensemble = fit_ensemble(support, w0, val, templates=TEMPLATES)
    p = softmax(ensemble(torch.tensor(val.z).float(), torch.tensor(val.logits).float()).double().numpy())
    np.testing.assert_allclose(ensemble.mix.truth, np.sort(p[np.arange(14), val.labels]), atol=5e-3)
    means = np.array([support.z[support.labels == c].mean(axis=0) for c in range(4)])
    cosines = val.z @ (means / np.sqrt((means**2).sum(axis=1, keepdims=True))).T
    np.testing.assert_allclose(ensemble.mix.similarity, np.sort(cosines.max(axis=1)), atol=1e-5)
    np.testing.assert_allclose(ensemble.similarity(torch.tensor(val.z).float()), cosines.max(axis=1), atol=2e-3)


def test_one_image_a_class_says_nothing_of_known_images() -> None:
    mix = fit_ensemble(*made_up(np.array([1, 3, 0, 2]), signal=1.0), templates=TEMPLATES).mix
    assert mix.similarity == mix.truth == ()


def test_probabilities_at_a_temperature_take_the_place_of_those_without() -> None:
    """Of more than are kept, the smallest, the largest, and even ranks between; the similarities stay."""
    ensemble = fit_ensemble(*made_up(UNEVEN, signal=1.0), templates=TEMPLATES)
    similarity, p = ensemble.mix.similarity, np.random.default_rng(0).random(600)
    ensemble.judge_by(p)
    ranks = [round(place * 599 / 254) for place in range(255)]
    assert ensemble.mix.truth == tuple(np.sort(p)[ranks].round(5).tolist()) and ensemble.mix.similarity == similarity
    z = torch.randn(5, 8)
    known = ensemble.known(z)
    cosines = (torch.nn.functional.normalize(z, dim=1) @ ensemble.prototypes.T).max(dim=1).values.tolist()
    expected = np.array([(1 + sum(other <= c for other in similarity)) / (1 + len(similarity)) for c in cosines])
    below = np.array(cosines) < min(similarity)  # there, the tail of Student's t
    wide = np.std(similarity, ddof=1) * np.sqrt(1 + 1 / len(similarity))
    tail = stats.t.cdf((np.array(cosines) - np.mean(similarity)) / wide, len(similarity) - 1)
    assert 0 < below.sum() < len(below)
    np.testing.assert_allclose(known, np.where(below, np.minimum(expected, tail), expected), rtol=1e-6)


def test_without_known_images_nothing_is_known() -> None:
    ensemble = fit_ensemble(*made_up(np.array([1, 3, 0, 2]), signal=1.0), templates=TEMPLATES)
    assert ensemble.known(torch.randn(2, 8)) is None
