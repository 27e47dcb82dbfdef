"""Wrong labels are found and counted; probabilities are of a model that has not seen the image."""

import numpy as np
import pytest

from daptune.methods import mislabelled as module
from daptune.methods.discriminant import Discriminant
from daptune.methods.ensemble import CENTRED
from daptune.methods.mislabelled import RIGHT, judge_labels


def gathered(counts: list[int], noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit features (n, 16) around a centre a class, labels, and unit text features near the centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(counts), 16))
    labels = np.repeat(np.arange(len(counts)), counts)
    z = centres[labels] + noise * rng.normal(size=(len(labels), 16))
    w0 = centres + 2 * rng.normal(size=centres.shape)
    return tuple(x if x.ndim == 1 else x / np.linalg.norm(x, axis=1, keepdims=True) for x in (z, labels, w0))  # type: ignore[return-value]


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def swapped(labels: np.ndarray, share: float, classes: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share is another class, and the rows of these."""
    rng = np.random.default_rng(seed)
    given, bad = labels.copy(), rng.permutation(len(labels))[: round(share * len(labels))]
    for row in bad:
        given[row] = rng.choice(np.setdiff1d(np.arange(classes), [labels[row]]))
    return given, bad


COUNTS = [12, 5, 20, 9, 14]


def test_swapped_labels_come_first_and_are_flagged() -> None:
    z, labels, w0 = gathered(COUNTS, 0.4)
    given, bad = swapped(labels, 0.1, 5)
    found = judge_labels(z, given, w0)
    assert set(found.order[: len(bad)].tolist()) == set(bad.tolist())
    assert set(np.flatnonzero(found.flagged).tolist()) == set(bad.tolist())
    assert (found.likely[bad] == labels[bad]).all() and (found.likely_own >= found.own).all()
    assert found.wrong == pytest.approx(len(bad), abs=1.5) and found.expected < 1


def test_right_labels_of_well_parted_classes_are_left_alone() -> None:
    z, labels, w0 = gathered(COUNTS, 0.1)
    found = judge_labels(z, labels, w0)
    assert not found.flagged.any() and found.wrong < 0.1 and found.expected < 0.01


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
def test_the_number_of_wrong_labels_is_estimated_where_classes_overlap(share: float) -> None:
    """Means over draws: the estimate is near the truth, although an image in eight looks like another class."""
    estimates, flags, expected, unclear = [], [], [], []
    for seed in range(6):
        z, labels, w0 = gathered([60, 25, 80, 45], 1.5, seed)
        given, _ = swapped(labels, share, 4, seed)
        found = judge_labels(z, given, w0)
        estimates.append(found.wrong / len(labels))
        flags.append(found.flagged.sum())
        expected.append(found.expected)
        unclear.append((found.likely != labels).mean())
    assert np.mean(unclear) > 0.12
    assert np.mean(estimates) == pytest.approx(share, abs=0.05)
    if share:
        assert np.mean(flags) > 2 * np.mean(expected)


def test_weights_and_noise_are_the_mode_of_the_posterior() -> None:
    """No point of a grid around the found one is more probable, by plain loops over the images."""
    z, labels, w0 = gathered([4, 9, 6], 1.0)
    given, _ = swapped(labels, 0.2, 3)
    rng = np.random.default_rng(3)
    scores = np.stack([rng.normal(size=(19, 3)), 2 * z @ w0.T])
    scores[1, np.arange(19), given] += 1

    def loss(a: np.ndarray, noise: float) -> float:
        total = np.square(np.log(a)).sum() / 2 - RIGHT * np.log(1 - noise)
        for row in range(19):
            p = softmax(a[0] * scores[0, row] + a[1] * scores[1, row])
            total -= np.log((1 - noise) * p[given[row]] + noise / 3)
        return float(total)

    a, noise = module._fit(scores, given)
    best = loss(a, noise)
    for first in (0.97, 1, 1.03):
        for second in (0.97, 1, 1.03):
            for shift in (-0.01, 0, 0.01):
                if 0 < noise + shift < 1:
                    assert loss(a * (first, second), noise + shift) >= best - 1e-6


def test_each_image_is_left_out() -> None:
    """The logs of probabilities are a weighted sum of text scores and of scores fitted without the image."""
    z, labels, w0 = gathered([3, 9, 6], 2.0)
    found = judge_labels(z, labels, w0)
    given, likely = (np.log(values) for values in (found.own, found.likely_own))
    text = z @ w0.T
    text -= CENTRED * np.mean([text[labels == c].mean(axis=0) for c in range(3)], axis=0)
    left_out = Discriminant.fit(z, labels, 3).left_out(z, labels)  # compared with refits in test_discriminant
    rows = np.flatnonzero(found.likely != labels)
    assert len(rows) > 2
    gaps = [scores[rows, found.likely[rows]] - scores[rows, labels[rows]] for scores in (text, left_out)]
    weights, remainder, *_ = np.linalg.lstsq(np.stack(gaps, axis=1), (likely - given)[rows], rcond=None)
    assert (weights > 0).all() and (len(rows) == 2 or remainder < 1e-16)


def test_the_expected_flags_are_those_of_labels_drawn_from_the_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    z, labels, w0 = gathered([30, 10, 25], 1.1)
    given, _ = swapped(labels, 0.2, 3)
    seen: list[np.ndarray] = []
    softmax_of = module._softmax

    def kept(scores: np.ndarray) -> np.ndarray:
        seen.append(softmax_of(scores))
        return seen[-1]

    monkeypatch.setattr(module, "_softmax", kept)
    found = judge_labels(z, given, w0)
    p = seen[-1]
    assert p[np.arange(65), given] == pytest.approx(found.own)
    rng = np.random.default_rng(0)
    drawn = [sum(p[row, rng.choice(3, p=p[row])] < found.threshold for row in range(65)) for _ in range(400)]
    assert found.expected > 0.2
    assert found.expected == pytest.approx(np.mean(drawn), abs=3 * np.std(drawn) / 20)


def test_a_class_with_one_image_is_not_checked_and_comes_in_no_order() -> None:
    z, labels, w0 = gathered([6, 6, 6], 0.3)
    kept = np.r_[0, 6:18]  # one image of class 0
    found = judge_labels(z[kept], labels[kept], w0)
    assert np.isnan(found.own[0]) and not np.isnan(found.own[1:]).any()
    assert found.checked == 12 and 0 not in found.order and not found.flagged[0]
    none = judge_labels(z[[0, 6, 12]], labels[[0, 6, 12]], w0)
    assert none.checked == 0 and len(none.order) == 0 and none.wrong == 0 and not none.flagged.any()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    z, labels, w0 = gathered(COUNTS, 0.8)
    whole = judge_labels(z, labels, w0)
    monkeypatch.setattr(module, "BLOCK", 7)
    parts = judge_labels(z, labels, w0)
    assert parts.own == pytest.approx(whole.own) and parts.expected == pytest.approx(whole.expected)
    assert (parts.likely == whole.likely).all()
