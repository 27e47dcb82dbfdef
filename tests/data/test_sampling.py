"""Epochs of a table: each class as often, no image before the others of its group, and passes as they always were."""

from collections import Counter

import numpy as np
import pytest

from daptune.data.augment import epoch_order
from daptune.data.sampling import Sampler, ViewSampler

UNEVEN = np.array([0] * 40 + [2] * 3 + [3] * 7)  # no image of class 1


def mixed(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(labels)


@pytest.mark.parametrize("shots", [None, 6, 16])
@pytest.mark.parametrize("sampling", ["shuffled", "balanced"])
def test_with_equal_classes_an_epoch_is_the_pass_that_it_was(sampling: str, shots: int | None) -> None:
    labels = mixed(np.arange(4).repeat(6))
    sampler = Sampler.of(labels, sampling, shots, seed=5)
    for epoch in (0, 1, 9):
        rows, passes = sampler.epoch(epoch)
        assert rows.tolist() == epoch_order(24, 5, epoch).tolist()
        assert passes.tolist() == [epoch] * 24


def test_shuffled_passes_are_what_they_were_for_uneven_classes() -> None:
    rows, passes = Sampler.of(UNEVEN, "shuffled", None, seed=2).epoch(3)
    assert rows.tolist() == epoch_order(50, 2, 3).tolist() and set(passes.tolist()) == {3}


@pytest.mark.parametrize(("shots", "each"), [(None, 40), (16, 16), (5, 5), (100, 40)])
def test_balanced_epochs_have_as_many_of_every_class(shots: int | None, each: int) -> None:
    labels = mixed(UNEVEN)
    sampler = Sampler.of(labels, "balanced", shots, seed=1)
    assert len(sampler) == 3 * each
    for epoch in range(5):
        rows, _ = sampler.epoch(epoch)
        assert Counter(labels[rows].tolist()) == {0: each, 2: each, 3: each}


@pytest.mark.parametrize("sampling", ["shuffled", "balanced"])
def test_no_image_is_drawn_again_before_the_others(sampling: str) -> None:
    """Counted over many epochs: within a group, the numbers of draws differ by at most one at any time."""
    labels = mixed(UNEVEN)
    sampler = Sampler.of(labels, sampling, 16, seed=1)
    drawn = np.zeros(50, int)
    for epoch in range(12):
        rows, passes = sampler.epoch(epoch)
        for row in np.unique(rows):
            own = np.sort(passes[rows == row])
            assert own.tolist() == list(range(drawn[row], drawn[row] + len(own)))  # its earlier draws
            drawn[row] += len(own)
        for group in [labels >= 0] if sampling == "shuffled" else [labels == c for c in (0, 2, 3)]:
            assert np.ptp(drawn[group]) <= 1
    assert drawn.sum() == 12 * len(sampler)


def test_a_shuffled_epoch_is_as_long_as_that_of_a_few_shot_sample() -> None:
    assert len(Sampler.of(UNEVEN, "shuffled", 16, seed=1)) == 16 + 3 + 7


def test_the_order_mixes_classes_and_depends_on_seed_and_epoch_alone() -> None:
    labels = np.arange(2).repeat(100)
    draws = {
        key: Sampler.of(labels, "balanced", 16, key[0]).epoch(key[1])[0].tolist() for key in ((1, 0), (1, 1), (2, 0))
    }
    assert len({tuple(rows) for rows in draws.values()}) == 3
    assert draws[1, 1] == Sampler.of(labels, "balanced", 16, 1).epoch(1)[0].tolist()
    changes = np.count_nonzero(np.diff(labels[draws[1, 0]]))
    assert 8 <= changes <= 24  # 15.5 on average in a random order of 16 and 16, 1 without any


@pytest.mark.parametrize(
    ("images", "views", "batch", "draws"), [(7, 3, 4, 4), (9, 3, 4, 8), (3, 2, 32, 6), (5, 4, 8, 8)]
)
def test_views_are_drawn_with_their_images_and_no_pair_twice(images: int, views: int, batch: int, draws: int) -> None:
    """As many whole batches as the images fill, at least one, of all pairs or fewer."""
    sampler = ViewSampler.over(images, views, batch, seed=1)
    assert len(sampler) == draws and not sampler.whole
    seen = set()
    for epoch in range(30):
        rows, of_view = sampler.epoch(epoch)
        pairs = set(zip(rows.tolist(), of_view.tolist(), strict=True))
        assert len(pairs) == len(rows) == draws
        assert pairs <= {(row, view) for row in range(images) for view in range(views)}
        seen |= pairs
    assert len(seen) == images * views
    assert sampler.epoch(3)[0].tolist() == ViewSampler.over(images, views, batch, seed=1).epoch(3)[0].tolist()
