"""Views made on the device are those of the workers up to rounding, and as pure a function of their place."""

import numpy as np
import pytest
import torch
from PIL import Image

from daptune.clip.preprocess import Preprocess
from daptune.data import Augmentation, ImageLoader, read_source
from daptune.data.augment import EPOCH, augment, cut, generator
from daptune.data.demo import demo_styles, extract_demo
from daptune.data.device import Cut

LARGEST, ROUNDED_OTHERWISE = 2.01, 0.02
"""Of 255, by how much a pixel differs at most from Pillow's where both go along rows first; the share that differs."""
LARGEST_OTHER_ORDER, MEAN_OTHER_ORDER = 25.01, 0.5
"""The same where Pillow may go along columns first, on noise, which is all edges; and the mean over an image."""
CPU = torch.device("cpu")
PLAIN = Preprocess(64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
STRONG = Augmentation(scale=(0.08, 1), flip=0.5)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = extract_demo(tmp_path_factory.mktemp("demo"))
    return read_source(folder / demo_styles()[0]).train


def differences(image: Image.Image, size: int, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a view to Pillow's along rows first, and to that of `augment`, in units of 255."""
    preprocess = Preprocess(size, mean=PLAIN.mean, std=PLAIN.std)
    point = (1, EPOCH, 0, row)
    found = Cut.draw(image, generator(*point), STRONG, CPU).view(preprocess)
    assert found.shape == (3, size, size) and found.dtype == torch.float32
    crop, flipped = cut(image, generator(*point), STRONG)
    for shape in ((size, crop.height), (size, size)):
        crop = crop.resize(shape, Image.Resampling.BICUBIC)
    crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else crop
    expected = np.asarray(crop), augment(image, size, generator(*point), STRONG)
    return tuple((found - preprocess.normalize(pixels)).abs().numpy() * 255 for pixels in expected)


@pytest.mark.parametrize("size", [16, 64, 224, 400])
def test_pixels_are_pillows_up_to_rounding(size: int, table) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3)).astype(np.uint8)
    pictures = [Image.open(path).convert("RGB") for path in table.images[:: len(table) // 12]]
    for row, picture in enumerate([*pictures, Image.fromarray(noise)]):
        same_order, any_order = differences(picture, size, row)
        assert same_order.max() <= LARGEST and (same_order > 0.5).mean() <= ROUNDED_OTHERWISE
        assert any_order.max() <= LARGEST_OTHER_ORDER and any_order.mean() <= MEAN_OTHER_ORDER


def test_overshoot_is_cut_off_as_in_pillow() -> None:
    """Bicubic overshoots beside an edge: black would be below 0 and white above 255."""
    edge = np.zeros((32, 32, 3), np.uint8)
    edge[:, 16:] = 255
    view = Cut.draw(Image.fromarray(edge), generator(0, EPOCH, 0), Augmentation(scale=(1, 1)), CPU).view(PLAIN)
    assert view.min() == 0 and view.max() == 1


def loader(table, **options) -> ImageLoader:
    settings = {"seed": 3, "augment": True, "shuffle": True, "augmentation": STRONG, "augment_on": "cpu"} | options
    return ImageLoader(table, Preprocess(32), 8, **settings)


def test_a_loader_shows_the_same_boxes_and_flips(table) -> None:
    ours, theirs = loader(table), loader(table, augment_on=None)
    bound = MEAN_OTHER_ORDER / 255 / min(Preprocess().std)
    for batches in ((ours.epoch(2), theirs.epoch(2)), (ours.augmented_view(1), theirs.augmented_view(1))):
        for (a, labels), (b, same_labels) in zip(*batches, strict=True):
            assert torch.equal(labels, same_labels) and a.is_contiguous()
            assert (a - b).abs().mean(dim=(1, 2, 3)).max() <= bound


def test_a_loaders_views_are_functions_of_their_place(table) -> None:
    epoch = list(loader(table, workers=3).epoch(2))
    for other in (loader(table, workers=0), loader(table, cache_bytes=0)):
        for (a, _), (b, _) in zip(epoch[1:], other.epoch(2, 1), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(epoch[0][0], next(loader(table).epoch(3))[0])


def test_what_is_not_augmented_is_made_by_the_workers(table) -> None:
    for (a, _), (b, _) in zip(loader(table).evaluation(), loader(table, augment_on=None).evaluation(), strict=True):
        assert torch.equal(a, b)
