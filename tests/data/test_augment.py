"""The crop is torchvision's: its formulas written anew, on the same random numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from daptune.data import Augmentation
from daptune.data.augment import EPOCH, ORDER, VIEW, augment, crop_box, epoch_order, generator
from daptune.errors import DataError

sides = st.integers(1, 5000)
seeds = st.integers(0, 2**64 - 1)


def torchvision_box(height, width, rng, scale, ratio):
    """RandomResizedCrop.get_params of torchvision, (i, j, h, w), with rng for torch's generator."""
    for _ in range(10):
        target_area = height * width * rng.uniform(scale[0], scale[1])
        aspect_ratio = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w = round(math.sqrt(target_area * aspect_ratio))
        h = round(math.sqrt(target_area / aspect_ratio))
        if 0 < w <= width and 0 < h <= height:
            i = rng.integers(0, height - h + 1)
            return i, rng.integers(0, width - w + 1), h, w
    if width / height < min(ratio):
        w, h = width, round(width / min(ratio))
    elif width / height > max(ratio):
        h, w = height, round(height * max(ratio))
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@settings(deadline=None)  # the machine may be busy
@given(sides, sides, seeds)
def test_boxes_are_torchvisions_and_lie_within(width, height, seed):
    spec = Augmentation(scale=(0.08, 1))
    left, top, right, bottom = crop_box(width, height, generator(seed, EPOCH, 0), spec)
    i, j, h, w = torchvision_box(height, width, generator(seed, EPOCH, 0), spec.scale, spec.ratio)
    assert (left, top, right - left, bottom - top) == (j, i, w, h)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000), (1, 1), (3, 1)])
def test_what_never_fits_falls_back_to_the_centre(size):
    spec = Augmentation(scale=(1, 1), ratio=(0.9, 1.1))
    left, top, right, bottom = crop_box(*size, generator(0, EPOCH, 0), spec)
    assert abs(left - (size[0] - right)) <= 1 and abs(top - (size[1] - bottom)) <= 1
    assert max(right - left, bottom - top) <= round(1.1 * min(size)) or size == (1, 1)


def test_area_and_ratio_are_uniform_where_all_fits():
    spec = Augmentation(scale=(0.1, 0.3))
    rng = generator(1, EPOCH, 0)
    boxes = np.array([crop_box(1000, 1000, rng, spec) for _ in range(4000)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, log_ratio = w * h / 1e6, np.log(w / h)
    assert area.mean() == pytest.approx(0.2, abs=0.004) and area.std() == pytest.approx(0.2 / 12**0.5, rel=0.05)
    assert log_ratio.mean() == pytest.approx(0, abs=0.02)
    assert log_ratio.std() == pytest.approx(2 * math.log(4 / 3) / 12**0.5, rel=0.05)


def smooth_picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (15, 20, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("row", range(8))
def test_views_are_crop_resize_and_flip(row):
    image, spec = smooth_picture(), Augmentation(scale=(0.08, 1), flip=0.5)
    view = augment(image, 64, generator(3, VIEW, 1, row), spec)
    rng = generator(3, VIEW, 1, row)
    box = crop_box(400, 300, rng, spec)
    expected = image.crop(box).resize((64, 64), Image.Resampling.BICUBIC)
    pixels = np.asarray(expected)[:, ::-1] if rng.random() < 0.5 else np.asarray(expected)
    assert view.shape == (64, 64, 3) and view.dtype == np.uint8
    np.testing.assert_array_equal(view, pixels)


def test_flips_happen_as_often_as_asked():
    picture = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(1, 16).repeat(16, 0)).convert("RGB")
    for probability, low, high in ((0.0, 0, 0), (1.0, 400, 400), (0.3, 90, 150)):
        spec = Augmentation(scale=(1, 1), ratio=(1, 1), flip=probability)
        views = [augment(picture, 16, generator(0, EPOCH, 0, row), spec) for row in range(400)]
        assert low <= sum(view[0, 0, 0] > view[0, -1, 0] for view in views) <= high


@settings(deadline=None)  # the machine may be busy
@given(seeds, st.integers(0, 2**40), st.integers(0, 2**40))
def test_points_of_a_run_have_streams_of_their_own(seed, number, row):
    points = [(seed, EPOCH, number, row), (seed, VIEW, number, row), (seed, EPOCH, number + 1, row)]
    points += [(seed, EPOCH, number, row + 1), ((seed + 1) % 2**64, EPOCH, number, row)]
    draws = [tuple(generator(*point).integers(0, 2**63, 4)) for point in points]
    assert len(set(draws)) == len(points)
    assert tuple(generator(*points[0]).integers(0, 2**63, 4)) == draws[0]


def test_random_numbers_never_change():
    """Philox4x64-10 by numpy; other numbers mean that a stopped run no longer goes on as it would have."""
    assert generator(1, VIEW, 2, 3).integers(0, 2**63, 2).tolist() == [
        1602079495473477330,
        1113701440267636790,
    ]
    assert epoch_order(8, 1, 0).tolist() == [4, 0, 2, 3, 6, 1, 7, 5]


def test_orders_are_permutations_that_change_with_the_epoch():
    orders = [epoch_order(50, 7, epoch) for epoch in range(3)]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert np.array_equal(epoch_order(50, 7, 1), orders[1]) and ORDER not in (EPOCH, VIEW)


@pytest.mark.parametrize(
    "options",
    [{"scale": (0, 1)}, {"scale": (0.5, 0.2)}, {"scale": (0.1, 2)}, {"ratio": (2, 1)}, {"flip": 1.5}],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(DataError, match=r"expected a (crop|flip) .*, found") as caught:
        Augmentation(**options)
    assert str(next(iter(options.values()))) in str(caught.value)
