"""Augmentation: a random crop, resized to the backbone's image size, and a random flip.

Each view is a pure function of (seed, purpose, pass, row), from a counter-based generator (Philox, Salmon et al., SC
2011), so that images can be augmented in any order and on any thread.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from daptune.errors import DataError

EPOCH, VIEW, ORDER, DRAW = 0, 1, 2, 3  # purposes: training epochs, views for prototypes, order of an epoch, its images
_TRIES = 10


@dataclass(frozen=True)
class Augmentation:
    """Crops and flips; CoOp's are scale=(0.08, 1), flip=0.5 (dassl/data/transforms/transforms.py)."""

    scale: tuple[float, float] = (0.5, 1.0)
    """Area of the crop as a fraction of the image's; for the default see docs/defaults.md."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of the crop."""
    flip: float = 0.0
    """Probability of a left-right flip; 0 by default, since left and right may differ (letters, arrows)."""

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise DataError(f"expected a crop scale 0 < low <= high <= 1, found {self.scale}.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise DataError(f"expected a crop ratio 0 < low <= high, found {self.ratio}.")
        if not 0 <= self.flip <= 1:
            raise DataError(f"expected a flip probability from 0 to 1, found {self.flip}.")


def generator(seed: int, purpose: int, number: int, row: int = 0) -> np.random.Generator:
    """The generator for one purpose, pass and row; generators are 2^64 draws apart."""
    counter = np.array([0, purpose, number, row], dtype=np.uint64)  # the first word counts the draws
    return np.random.Generator(np.random.Philox(key=int(seed) % 2**64, counter=counter))


def epoch_order(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """A permutation of range(count) for one epoch."""
    return generator(seed, ORDER, epoch).permutation(count)


def crop_box(
    width: int, height: int, rng: np.random.Generator, augmentation: Augmentation
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in whole pixels, drawn as in torchvision's RandomResizedCrop.get_params.

    Area uniform in scale, aspect log-uniform in ratio, position uniform; after 10 draws that do not fit, the largest
    central crop within the ratio.
    """
    low, high = math.log(augmentation.ratio[0]), math.log(augmentation.ratio[1])
    for _ in range(_TRIES):
        area = width * height * rng.uniform(*augmentation.scale)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(0, height - h, endpoint=True))
            left = int(rng.integers(0, width - w, endpoint=True))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < augmentation.ratio[0]:
        h = min(height, max(1, round(width / augmentation.ratio[0])))
    elif width / height > augmentation.ratio[1]:
        w = min(width, max(1, round(height * augmentation.ratio[1])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def cut(image: Image.Image, rng: np.random.Generator, augmentation: Augmentation) -> tuple[Image.Image, bool]:
    """A random crop, not resized, and whether to flip it."""
    crop = image.crop(crop_box(image.width, image.height, rng, augmentation))
    return crop, bool(rng.random() < augmentation.flip)


def augment(
    image: Image.Image, size: int, rng: np.random.Generator, augmentation: Augmentation
) -> npt.NDArray[np.uint8]:
    """A random view of an RGB image, cropped and resized as in torchvision: uint8 (size, size, 3)."""
    view, flipped = cut(image, rng, augmentation)
    view = view.resize((size, size), Image.Resampling.BICUBIC)
    if flipped:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(view)
