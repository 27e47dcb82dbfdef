"""Relevance of patches: what a loop over patches gives, in the right place; pictures of at most ten kilobytes."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from daptune.clip.backbone import Backbone, load_backbone
from daptune.clip.preprocess import Preprocess
from daptune.methods import METHODS
from daptune.report.thumbnails import BYTES, embedded, gallery
from daptune.report.where import SIDE, patch_relevance, picture_with_map

NAMES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def backbone(made_up_backbone: str) -> Backbone:
    return load_backbone(made_up_backbone, precision="fp32")


def some_image(backbone: Backbone) -> torch.Tensor:
    side = backbone.clip.config.image_size
    return torch.randn(3, side, side, generator=torch.Generator().manual_seed(3))


def test_a_patch_is_classified_like_an_image(backbone: Backbone) -> None:
    """Scores by hand: 100 times the cosine of the patch's feature and the texts, less their mean."""
    method = METHODS["dapt"](backbone, NAMES, METHODS["dapt"].config_class(text_tokens=2, vision_tokens=2))
    method.eval()
    image, side = some_image(backbone), backbone.clip.config.image_size // backbone.clip.config.patch_size
    found = patch_relevance(method, image, 1)
    assert found is not None and found.shape == (side, side) and side > 1
    with torch.no_grad():
        patches = backbone.clip.encode_image(image[None], method.image_prompts(), patches=True)[0, 1:].double().numpy()
        texts, scale = method.text_features().double().numpy(), float(backbone.clip.logit_scale.exp())
    for row in range(side):
        for column in range(side):
            z = patches[row * side + column]
            scores = [scale * float(z @ w) / float(np.linalg.norm(z)) for w in texts]
            assert found[row, column] == pytest.approx(scores[1] - sum(scores) / 3, abs=1e-3)
    assert np.ptp(found) > 0


def test_a_method_that_sees_images_has_no_map(backbone: Backbone) -> None:
    assert patch_relevance(METHODS["vp"](backbone, NAMES), some_image(backbone), 0) is None


def test_the_most_relevant_patch_is_orange_and_the_least_grey() -> None:
    """A white picture twice as wide as high, of which the middle is seen; patch (0, 1) is the upper right."""
    white = Image.new("RGB", (400, 200), "white")
    found = picture_with_map(white, Preprocess(size=32), np.array([[0.0, 4.0], [0.0, -2.0]]))
    assert found.size == (SIDE, SIDE)
    pixels = np.asarray(found).astype(int)
    warm = pixels[..., 0] - pixels[..., 2]
    assert warm[5, -5] > 150 and warm[-5, -5] == 0 and 0 < warm[5, 5] < 60
    even = picture_with_map(white, Preprocess(size=32), np.ones((2, 2)))
    assert np.ptp(np.asarray(even)) == 0


def test_no_picture_has_more_than_ten_kilobytes() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (176, 176, 3), dtype=np.uint8))
    (content,) = re.findall(r'src="data:image/webp;base64,([^"]+)"', embedded(noise, "noise"))
    data = base64.b64decode(content)
    stream = io.BytesIO()
    noise.save(stream, "WEBP", quality=80)
    assert len(data) <= BYTES == 10_000 < len(stream.getvalue())
    with Image.open(io.BytesIO(data)) as image:
        assert image.width == image.height >= 40


def test_a_gallery_of_pairs() -> None:
    picture = Image.new("RGB", (20, 10), "red")
    text = gallery([(picture, "a", ["line"])], [embedded(picture, "b")])
    assert text.count("<img") == 2 and 'class="pair"' in text and 'alt="b"' in text
    assert gallery([(picture, "a", [])]).count("<img") == 1
