"""Measures against scikit-learn and scipy, and against what they must be on made-up data."""

import itertools
import math
import statistics
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as oracle

from daptune import metrics
from daptune.errors import DataError
from daptune.metrics import (
    accuracy,
    by_confidence,
    confusion_matrix,
    expected_calibration_error,
    holm,
    macro_f1,
    mean_interval,
    negative_log_likelihood,
    paired_bootstrap,
    per_class_accuracy,
)

draw = np.random.default_rng(0)
LABELS = draw.integers(0, 5, 300)
PREDICTED = np.where(draw.random(300) < 0.6, LABELS, draw.integers(0, 7, 300))
SCORES = draw.dirichlet(np.full(5, 0.4), 300)


def test_accuracy_confusion_and_f1_are_scikit_learns() -> None:
    assert accuracy(LABELS, PREDICTED) == oracle.accuracy_score(LABELS, PREDICTED)
    assert (confusion_matrix(LABELS, PREDICTED, 7) == oracle.confusion_matrix(LABELS, PREDICTED, labels=range(7))).all()
    assert accuracy([1], [1]) == 1
    expected = oracle.f1_score(LABELS, PREDICTED, average="macro", labels=np.unique(LABELS))
    assert macro_f1(LABELS, PREDICTED) == pytest.approx(expected)


def test_a_class_that_is_never_predicted_counts_in_f1() -> None:
    assert macro_f1([0, 0, 1], [0, 0, 0]) == pytest.approx((0.8 + 0) / 2)


def test_a_class_without_images_does_not_count_in_f1() -> None:
    """Class 1 has no image and is said once, class 3 has one: (2/3 + 1) / 2 of the classes 0 and 3."""
    assert macro_f1([0, 0, 3], [0, 1, 3]) == pytest.approx((2 / 3 + 1) / 2)
    assert macro_f1([0, 0, 1], [0, 4, 1]) == pytest.approx((2 / 3 + 1) / 2)


def test_per_class_accuracy() -> None:
    shares = per_class_accuracy([0, 0, 1, 3], [0, 1, 1, 0], 4)
    assert shares[:2].tolist() == [0.5, 1.0] and np.isnan(shares[2]) and shares[3] == 0


def test_negative_log_likelihood_is_scikit_learns() -> None:
    assert negative_log_likelihood(LABELS, SCORES) == pytest.approx(oracle.log_loss(LABELS, SCORES))
    assert negative_log_likelihood([0], [[0.0, 1.0]]) == pytest.approx(126 * math.log(2))  # 2^-126 is the least


def test_calibration_error_as_plain_loops() -> None:
    total = 0.0
    confidence, right = SCORES.max(1), SCORES.argmax(1) == LABELS
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(LABELS, SCORES) == pytest.approx(total)
    assert expected_calibration_error([0, 1], [[1.0, 0.0], [0.0, 1.0]]) == 0
    assert expected_calibration_error([1, 0], [[1.0, 0.0], [0.0, 1.0]]) == 1


def test_calibration_bins_are_open_on_the_left() -> None:
    """A confidence of 0.5 is in the lower of two bins: |1 - 0.5| of one image and |0 - 0.6| of the other."""
    p = [[0.5, 0.5], [0.6, 0.4]]
    assert expected_calibration_error([0, 1], p, bins=2) == pytest.approx((0.5 + 0.6) / 2)
    assert expected_calibration_error([0, 1], p, bins=1) == pytest.approx(abs(1 - 0.5 - 0.6) / 2)
    assert expected_calibration_error([0], [[0.0, 0.0]], bins=3) == 1  # the lowest bin holds 0 too
    parts = by_confidence([0, 1, 0], [[0.5, 0.5], [0.6, 0.4], [0.4, 0.6]], bins=2)
    assert [(said.tolist(), right.tolist()) for said, right in parts] == [([0.5], [True]), ([0.6, 0.6], [False, False])]
    at_a_fifteenth = [[8 / 15, 7 / 15], [0.54, 0.46]]
    assert len(by_confidence([0, 1], at_a_fifteenth)) == 2
    assert expected_calibration_error([0, 1], at_a_fifteenth) == pytest.approx((7 / 15 + 0.54) / 2)


def test_the_outer_bins_hold_what_is_beyond_them() -> None:
    """A float32 softmax may add up to a little more than 1."""
    parts = by_confidence([0, 0, 1], [[1.0000001, 0.0], [0.97, 0.03], [0.5, 0.5]])
    assert [said.tolist() for said, _ in parts] == [[0.5], [1.0000001, 0.97]]
    assert len(by_confidence([0, 0], [[0.0, 0.0], [0.3, 0.2]], bins=3)) == 1


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_short_numbers_are_added_in_double_precision(kind: type) -> None:
    """1001 probabilities, features or values of few bits, and the same sums by `math`."""
    p = np.random.default_rng(5).dirichlet(np.ones(4), 1001).astype(kind)
    y = np.random.default_rng(6).integers(0, 4, 1001)
    logs = [-math.log(row[label]) for row, label in zip(p.tolist(), y.tolist(), strict=True)]
    assert negative_log_likelihood(y, p) == pytest.approx(math.fsum(logs) / 1001, rel=1e-12)
    assert mean_interval(p[:, 0]).mean == pytest.approx(math.fsum(p[:, 0].tolist()) / 1001, rel=1e-12)
    z = p[:40]
    gaps = [math.dist(a, b) for a, b in itertools.combinations(z.tolist(), 2)]
    assert metrics.text_distance(z) == pytest.approx(math.fsum(gaps) / 780, rel=1e-9)
    assert holm(np.full(3, 0.01, kind)) == pytest.approx([3 * float(kind(0.01))] * 3, rel=1e-12)  # type: ignore[arg-type]
    silhouette = oracle.silhouette_score(z.astype(np.float64), y[:40])
    assert metrics.silhouette(z, y[:40]) == pytest.approx(silhouette, rel=1e-12)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 10, 31, 1001])
@pytest.mark.parametrize("level", [0.2, 0.8, 0.9, 0.95, 0.99])
def test_the_interval_over_seeds(count: int, level: float) -> None:
    values = np.random.default_rng(count).normal(72, 1, count)
    found = mean_interval(values, level=level)
    low, high = stats.t.interval(level, count - 1, np.mean(values), stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high), rel=1e-9)
    assert found.count == count


def test_one_seed_has_no_interval() -> None:
    one = mean_interval([0.5])
    assert one.mean == 0.5 and np.isnan(one.low) and np.isnan(one.high) and one.count == 1


def test_the_interval_covers_as_often_as_it_says() -> None:
    sampler = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        found = mean_interval(sampler.normal(size=3))
        hits += found.low <= 0 <= found.high
    assert 0.91 < hits / 300 < 0.99


def test_bootstrap_agrees_with_the_plain_one() -> None:
    a, b = draw.random(400) < 0.7, draw.random(400) < 0.8
    found = paired_bootstrap([(a, b)])
    plain = np.random.default_rng(2)
    means = [(b[i].astype(float) - a[i]).mean() for i in (plain.integers(0, 400, 400) for _ in range(4000))]
    assert found.difference == pytest.approx(b.mean() - a.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.006)
    assert paired_bootstrap([(a, b)]) == found


def test_the_bootstrap_draws_the_same_in_every_run() -> None:
    """numpy's generator of seed 0: how many of the 5 images are lost, equal and won."""
    found = paired_bootstrap([([0, 0, 0, 1, 1], [1, 1, 0, 1, 0])])
    drawn = np.random.default_rng(0).multinomial(5, [0.2, 0.4, 0.4], size=10_000)
    means = (drawn[:, 2] - drawn[:, 0]) / 5
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    assert found.p_value == pytest.approx(2 * (1 + (means <= 0).sum()) / 10_001)


def test_the_p_value_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the share of the smaller tail, with one resample added: 2 (1 + 0) / (1 + 9), and never above 1."""
    a, b = np.array([0, 0, 0, 1, 1]), np.array([1, 1, 0, 1, 0])
    sums = np.array(list(itertools.product(b - a, repeat=5))).sum(axis=1)  # every way to draw five of the five
    exact = 2 * min((sums <= 0).mean(), (sums >= 0).mean())
    assert paired_bootstrap([(a, b)]).p_value == pytest.approx(exact, abs=0.03)
    assert paired_bootstrap([(b, a)]).p_value == pytest.approx(exact, abs=0.03)
    one, other = np.zeros(50), np.ones(50)
    assert paired_bootstrap([(one, other)]).p_value == pytest.approx(2 / 10_001)
    monkeypatch.setattr(metrics, "_RESAMPLES", 9)
    for pair in ((one, other), (other, one)):
        assert paired_bootstrap([pair]).p_value == pytest.approx(0.2)
    assert paired_bootstrap([(one, one)]).p_value == 1


def test_bootstrap_p_values() -> None:
    same = np.ones(50)
    assert paired_bootstrap([(same, same)]).p_value == 1
    assert paired_bootstrap([(np.zeros(50), same)]).p_value < 0.001
    assert paired_bootstrap([(same, np.zeros(50))]).difference == -1


def test_the_bootstrap_of_a_mean_resamples_each_set_by_itself() -> None:
    rng = np.random.default_rng(3)
    pairs = [(rng.integers(0, 2, n), rng.integers(0, 2, n)) for n in (40, 90)]
    found = paired_bootstrap(pairs)
    means = [np.mean([(b - a)[rng.integers(0, len(a), len(a))].mean() for a, b in pairs]) for _ in range(4000)]
    assert found.difference == pytest.approx(np.mean([(b - a).mean() for a, b in pairs]))
    assert [found.low, found.high] == pytest.approx(list(np.quantile(means, [0.025, 0.975])), abs=0.01)


def test_holm_by_hand() -> None:
    """3 x 0.01, 2 x 0.02, and 0.03 raised to what came before it."""
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == holm([0.7, 0.6]) == [1.0, 1.0] and holm([]) == []
    assert holm([0.9, 0.001, 0.04, 0.01]) == pytest.approx([0.9, 0.004, 0.08, 0.03])


@pytest.mark.parametrize(
    "call",
    [
        lambda: accuracy([], []),
        lambda: accuracy(np.empty(0, int), np.empty(0, int)),
        lambda: accuracy([0, 1], [0]),
        lambda: accuracy(["cat"], ["cat"]),
        lambda: accuracy([0.0], [0.0]),
        lambda: accuracy([[0, 1]], [[0, 1]]),
        lambda: negative_log_likelihood([0, 1], [[0.5, 0.5]]),
        lambda: negative_log_likelihood([[0]], [[0.5, 0.5]]),
        lambda: negative_log_likelihood([0], [[[0.5, 0.5]]]),
        lambda: negative_log_likelihood([], np.empty((0, 2))),
        lambda: negative_log_likelihood(["cat"], [[0.5, 0.5]]),
        lambda: confusion_matrix([0, 0], [0, 3], 3),
        lambda: confusion_matrix([0, 0], [0, -1], 3),
        lambda: mean_interval([[1.0, 2.0]]),
        lambda: paired_bootstrap([([], [])]),
        lambda: paired_bootstrap([([[1, 0]], [[1, 0]])]),
        lambda: confusion_matrix([0, 3], [0, 0], 3),
        lambda: confusion_matrix([0, -1], [0, 0], 3),
        lambda: expected_calibration_error([0], [0.5, 0.5]),
        lambda: mean_interval([]),
        lambda: paired_bootstrap([([1, 0], [1])]),
        lambda: paired_bootstrap([]),
    ],
)
def test_bad_input_is_one_line(call: object) -> None:
    with pytest.raises(DataError) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_it_needs_numpy_alone() -> None:
    code = "import sys, daptune.metrics; sys.exit(any(m in sys.modules for m in ('torch', 'scipy', 'sklearn')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- how features spread --------------------------------------------------------------------------------------------


def features(seed: int, count: int, size: int = 5) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(count, size))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_spread_of_text_features_against_plain_loops() -> None:
    w = features(0, 7)
    pairs = [(w[i] - w[j]) @ (w[i] - w[j]) for i in range(7) for j in range(i)]
    assert metrics.text_distance(w) == pytest.approx(sum(d**0.5 for d in pairs) / 21)
    assert metrics.uniformity(w) == pytest.approx(math.log(sum(math.exp(-2 * d) for d in pairs) / 21))
    assert metrics.uniformity(w, t=0.7) == pytest.approx(math.log(sum(math.exp(-0.7 * d) for d in pairs) / 21))
    assert metrics.uniformity(np.eye(4)) == pytest.approx(-4)
    assert metrics.uniformity(np.eye(2)) == pytest.approx(-4) and metrics.text_distance(np.eye(2)) == pytest.approx(
        2**0.5
    )
    assert metrics.text_distance(np.eye(4)) == pytest.approx(2**0.5)
    assert metrics.text_distance(w[[0, 0]]) == pytest.approx(0, abs=1e-7)
    assert math.isnan(metrics.text_distance(w[:1])) and math.isnan(metrics.uniformity(w[:1]))


def test_distance_to_prototypes_against_plain_loops() -> None:
    z, s, y = features(1, 9), 0.7 * features(2, 3), [0, 1, 2] * 3
    expected = sum(math.dist(image, s[label]) for image, label in zip(z, y, strict=True)) / 9
    assert metrics.prototype_distance(z, y, s) == pytest.approx(expected)


def test_silhouette_against_plain_loops() -> None:
    z, y = features(3, 110), np.random.default_rng(4).integers(0, 4, 110) * 3  # labels with gaps
    y[0] = 100  # alone in its class
    expected = []
    for i in range(len(z)):
        means = {
            label: np.mean([math.dist(z[i], z[j]) for j in np.flatnonzero(y == label) if j != i] or [0.0])
            for label in np.unique(y)
        }
        a, b = means.pop(y[i]), min(means.values())
        expected.append(0.0 if (y == y[i]).sum() == 1 else (b - a) / max(a, b))
    assert metrics.silhouette(z, y) == pytest.approx(np.mean(expected), abs=1e-9)
    assert metrics.silhouette(z[:5], range(5)) == 0
    apart = np.array([[0.0], [0.1], [5.0], [5.2]])
    assert metrics.silhouette(apart, [0, 0, 1, 1]) > 0.9 > 0 > metrics.silhouette(apart, [0, 1, 0, 1])
    assert math.isnan(metrics.silhouette(z, np.zeros(len(z), int)))


def test_p_values_are_ranks_among_known_images() -> None:
    """4 known: nothing below is 1 of 5, one at most the value 2 of 5, all 5 of 5."""
    assert metrics.rank_p_values([0.2, 0.4, 0.4, 0.9], [0.1, 0.2, 0.4, 0.95]).tolist() == [0.2, 0.4, 0.8, 1.0]


def test_below_all_known_images_p_values_are_those_of_students_t() -> None:
    """(0.1 - 0.5) / (s sqrt(1 + 1/3)) with mean 0.5, s = 0.1, 2 degrees of freedom: F(t) = 1/2 + t / (2 sqrt(2 + t^2)).

    The least known value itself and all above keep their rank, and so does a value for which t says more.
    """
    p = metrics.tail_p_values([0.4, 0.5, 0.6], [0.1, 0.399, 0.4, 0.55, 0.9])
    score = -0.4 / (0.1 * math.sqrt(4 / 3))
    assert p[0] == pytest.approx(0.5 + score / (2 * math.sqrt(2 + score**2)), abs=1e-12) and p[0] < 0.05
    assert p[1:].tolist() == pytest.approx([metrics.tail_p_values([0.4, 0.5, 0.6], [0.399])[0], 0.5, 0.75, 1.0])
    assert 0.2 < p[1] <= 0.25, "below all is at most 1 of 4"


@pytest.mark.parametrize("count", [2, 3, 4, 5, 18, 254, 255])
def test_the_tail_is_that_of_scipys_t(count: int) -> None:
    known = np.sort(np.random.default_rng(count).normal(0.6, 0.1, count))
    new = np.array([-0.9, 0.0, 0.1, 0.2, 0.3])
    new = new[new < known[0]]
    score = (new - known.mean()) / (known.std(ddof=1) * np.sqrt(1 + 1 / count))
    expected = np.minimum(stats.t.cdf(score, count - 1), 1 / (1 + count))
    found = metrics.tail_p_values(known, new)
    assert len(new) and found == pytest.approx(expected, abs=1e-12) and found.dtype == np.float64


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_p_values_of_short_numbers_are_those_in_double_precision(kind: type) -> None:
    """The tail from the mean and the deviation that `statistics` finds in the same 41 numbers; the rank by counting."""
    known = np.sort(np.random.default_rng(7).normal(0.6, 0.1, 41)).astype(kind)
    new = np.array([0.31, 0.05, 0.62], kind)
    values = [float(value) for value in known]
    scale = statistics.stdev(values) * math.sqrt(1 + 1 / 41)
    expected = [stats.t.cdf((float(value) - statistics.fmean(values)) / scale, 40) for value in new[:2]]
    rank = (1 + sum(value <= float(new[2]) for value in values)) / 42
    assert metrics.tail_p_values(known, new) == pytest.approx([*expected, rank], rel=1e-9)
    assert max(expected) < 1 / 42 < rank


def test_p_values_of_equal_or_single_known_images_are_ranks() -> None:
    for known in ([0.7], [0.7, 0.7]):
        ranks = metrics.rank_p_values(known, [0.1, 0.7])
        assert metrics.tail_p_values(known, [0.1, 0.7]).tolist() == ranks.tolist()


@pytest.mark.parametrize("count", [2, 4, 9])
def test_few_known_images_turn_away_as_many_as_asked(count: int) -> None:
    """Of normal values, 5 % with a standard deviation of 0.22 % over 10,000 draws, however few are known."""
    rng = np.random.default_rng(count)
    found = [metrics.tail_p_values(np.sort(rng.normal(size=count)), rng.normal(size=1))[0] for _ in range(10_000)]
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.007)


@pytest.mark.parametrize("error", [0.05, 0.1, 0.3])
def test_sets_hold_the_truth_as_often_as_promised(error: float) -> None:
    """Coverage over 400 draws of 60 known and 50 new images lies between 1 - error and 1 - error + 1 / 61."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        p = rng.dirichlet([0.3] * 5, size=110)
        labels = np.array([rng.choice(5, p=row) for row in p])
        true = p[np.arange(110), labels]
        sets = metrics.prediction_sets(np.sort(true[:60]), p[60:], error)
        assert sets[np.arange(50), p[60:].argmax(axis=1)].all()
        held.append(sets[np.arange(50), labels[60:]].mean())
    noise = 3 * np.std(held) / 20
    assert 1 - error - noise <= np.mean(held)
    assert np.mean(held) <= max(1 - error + 1 / 61, 0.0) + noise + 0.03  # the likeliest class is always in the set


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (0.19, [[True, True, True], [True, True, True]]),
        (0.2, [[False, True, True], [False, True, True]]),
        (0.4, [[False, True, True], [False, False, True]]),
        (0.79, [[False, False, True], [False, False, True]]),
        (0.99, [[False, False, True], [False, False, True]]),
    ],
)
def test_a_set_has_the_classes_whose_p_value_is_above_the_error(error: float, expected: list[list[bool]]) -> None:
    """Of 4 known, p values are 1/5, 3/5, 3/5 and 1/5, 2/5, 3/5; the likeliest class stays, however large the error."""
    probabilities = [[0.1, 0.4, 0.5], [0.15, 0.3, 0.55]]
    assert metrics.prediction_sets([0.3, 0.4, 0.6, 0.9], probabilities, error).tolist() == expected


@pytest.mark.parametrize(("hits", "count"), [(0, 3), (3, 3), (1, 26), (21, 72), (1, 1), (500, 1000)])
def test_the_interval_of_a_share_is_scipys(hits: int, count: int) -> None:
    expected = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert metrics.share_interval(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_no_share_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        metrics.share_interval(0, 0)
