"""The image transform equals torchvision's goldens; extreme shapes cost no memory."""

import json
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from daptune.clip.preprocess import OPENAI_MEAN, OPENAI_STD, Preprocess
from daptune.errors import BackboneError

from ..oracles.make_goldens import SIZE, picture

# Pillow before 13 rounds some pixels of strongly reduced images to the next of 255 levels; the goldens are of 13.
TOLERANCE = 1e-5 if int(PIL.__version__.split(".")[0]) >= 13 else 1.01 / 255 / min(OPENAI_STD)
GOLDENS = json.loads((Path(__file__).parent / "goldens" / "pixels.json").read_text())


@pytest.mark.parametrize("golden", GOLDENS, ids=[str(golden["shape"]) for golden in GOLDENS])
def test_goldens_of_torchvision(golden: dict[str, list[int]]) -> None:
    image = picture(*golden["shape"], seed=golden["seed"])
    found = Preprocess(SIZE)(image)
    assert found.shape == (3, SIZE, SIZE)
    assert found.dtype == torch.float32
    values = torch.tensor(golden["values"])
    assert (found.flatten()[golden["places"]] - values).abs().max() < TOLERANCE


def test_normalize_takes_any_leading_shape() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 8, 8, 3), dtype=np.uint8)
    found = Preprocess(8).normalize(pixels)
    assert found.shape == (2, 5, 3, 8, 8)
    wanted = (pixels[1, 2, 3, 4] / 255 - np.array(OPENAI_MEAN)) / np.array(OPENAI_STD)
    np.testing.assert_allclose(found[1, 2, :, 3, 4].numpy(), wanted, atol=1e-6)
    read_only = pixels[0, 0]
    read_only.setflags(write=False)
    assert Preprocess(8).normalize(read_only).equal(found[0, 0])


def test_squash_and_bilinear() -> None:
    image = picture(40, 20, 0)
    found = Preprocess(10, resize="squash", interpolation="bilinear").crop(image)
    assert np.array_equal(np.asarray(found), np.asarray(image.resize((10, 10), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize(("width", "height"), [(4000, 3), (3, 4000), (100_000, 1)])
def test_very_long_images_are_cropped_first(width: int, height: int) -> None:
    image = picture(width, height, 1)
    found = np.asarray(Preprocess(SIZE).crop(image), dtype=int)
    assert found.shape == (SIZE, SIZE, 3)
    if width * height < 20_000:  # the plain way, where it fits
        scale = SIZE / min(width, height)
        whole = image.resize((int(width * scale), int(height * scale)), Image.Resampling.BICUBIC)
        left, top = round((whole.width - SIZE) / 2), round((whole.height - SIZE) / 2)
        assert np.array_equal(np.asarray(whole.crop((left, top, left + SIZE, top + SIZE))), found)


def test_one_pixel() -> None:
    found = Preprocess(SIZE)(Image.new("RGB", (1, 1), (255, 0, 0)))
    assert found[0].unique().numel() == 1


def test_to_dict_and_back() -> None:
    preprocess = Preprocess(32, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "squash", "bilinear")
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
    assert Preprocess.from_dict({}) == Preprocess()


@pytest.mark.parametrize(
    "values",
    [
        {"size": 0},
        {"std": [1, 1, 0]},
        {"mean": [1, 1]},
        {"resize": "longest"},
        {"interpolation": "nearest"},
        {"mean": 3},
        {"size": "big"},
    ],
)
def test_values_that_are_no_transform(values: dict[str, object]) -> None:
    with pytest.raises(BackboneError, match="preprocessing"):
        Preprocess.from_dict(values)
