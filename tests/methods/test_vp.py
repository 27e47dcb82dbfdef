"""VP: where its pixels stand, features and gradients against pixel loops, the random patch, the classifier."""

from typing import Any

import pytest
import torch
from torch import Tensor

from daptune.errors import MethodError
from daptune.methods import METHODS, make_config
from daptune.methods.vp import VP

from ..clip.test_model import plain_image
from .conftest import NAMES
from .plain import check_gradients, images_of, plain_cross_entropy

LABELS = torch.tensor([1, 3, 0])
SIDE = 32


def make(backbone: Any, **options: object) -> VP:
    return VP(backbone, NAMES, make_config("vp", {"initial_std": 1.0, **options}))  # type: ignore[arg-type]


def looped_pixels(vp: VP, top: int = 0, left: int = 0) -> Tensor:
    """What is added, (3, R, R), pixel by pixel."""
    p, own = vp.pixels, dict(vp.named_parameters())
    planes = []
    for channel in range(3):
        rows = []
        for i in range(SIDE):
            row = []
            for j in range(SIDE):
                if "patch" in own:
                    inside = top <= i < top + p and left <= j < left + p
                    row.append(own["patch"][channel, i - top, j - left] if inside else torch.zeros(()))
                elif i < p:
                    row.append(own["up"][channel, i, j])
                elif i >= SIDE - p:
                    row.append(own["down"][channel, i - (SIDE - p), j])
                elif j < p:
                    row.append(own["left"][channel, i - p, j])
                elif j >= SIDE - p:
                    row.append(own["right"][channel, i - p, j - (SIDE - p)])
                else:
                    row.append(torch.zeros(()))
            rows.append(torch.stack(row))
        planes.append(torch.stack(rows))
    return torch.stack(planes)


def plain_loss(backbone: Any, vp: VP, images: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    z = torch.stack([plain_image(backbone.clip, image + pixels, None, "end") for image in images])
    z = z / z.norm(dim=-1, keepdim=True)
    return z, plain_cross_entropy(100 * z @ vp.text_features().mT, LABELS)


@pytest.mark.parametrize("options", [{}, {"prompt_pixels": 7}, {"prompt_shape": "fixed_patch", "prompt_pixels": 9}])
def test_features_and_gradients_equal_the_pixel_loops(backbone: Any, options: dict[str, object]) -> None:
    vp, images = make(backbone, **options), images_of(3)
    z, loss = plain_loss(backbone, vp, images, looped_pixels(vp))
    torch.testing.assert_close(vp.image_features(images), z, atol=1e-5, rtol=1e-5)
    losses = vp.losses(images, LABELS)
    assert set(losses) == {"cross_entropy", "total"}
    check_gradients(losses["total"], loss, list(vp.parameters()))


def test_the_random_patch_is_drawn_in_training_alone(backbone: Any) -> None:
    vp, images = make(backbone, prompt_shape="random_patch", prompt_pixels=9), images_of(3)
    torch.manual_seed(3)
    first, second = (vp.losses(images, LABELS)["total"] for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(vp.losses(images, LABELS)["total"], first) and not torch.equal(first, second)
    torch.manual_seed(3)
    top, left = torch.randint(SIDE - 9 + 1, (2,)).tolist()
    _, loss = plain_loss(backbone, vp, images, looped_pixels(vp, top, left))
    torch.testing.assert_close(first, loss, atol=1e-3, rtol=1e-5)
    check_gradients(first, loss, list(vp.parameters()))
    fixed = make(backbone, prompt_shape="fixed_patch", prompt_pixels=9)
    assert torch.equal(vp.logits(images), vp.logits(images)) and torch.equal(vp.logits(images), fixed.logits(images))


def test_the_random_patch_reaches_every_corner(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vp = make(backbone, prompt_shape="random_patch", prompt_pixels=SIDE - 1)
    places, pixel_prompt = set(), vp.pixel_prompt

    def noted(top: int = 0, left: int = 0) -> Tensor:
        places.add((top, left))
        return pixel_prompt(top, left)

    monkeypatch.setattr(vp, "pixel_prompt", noted)
    torch.manual_seed(0)
    for _ in range(30):
        vp.losses(images_of(1), LABELS[:1])
    assert places == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 69_840), ({"prompt_pixels": 30}, 69_840), ({"prompt_shape": "fixed_patch"}, 3 * 30 * 30)],
)
def test_parameter_counts_of_vit_b_16(vit_b_16: Any, options: dict[str, Any], count: int) -> None:
    assert make(vit_b_16, **options).parameter_count == count


def test_first_values_change_nothing_or_are_normal(backbone: Any) -> None:
    images = images_of(2)
    plain = METHODS["zero_shot"](backbone, NAMES)
    with torch.no_grad():
        assert torch.equal(make(backbone, initial_std=0).logits(images), plain.logits(images))
    noise = make(backbone, prompt_pixels=10).state_dict().values()
    values = torch.cat([value.flatten() for value in noise])
    assert float(values.std()) == pytest.approx(1, rel=0.05) and abs(float(values.mean())) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_pixels": 16}, r"^prompt_pixels: expected 0 to 15, what fits an image of 32 x 32 pixels, found 16\."),
        (
            {"prompt_pixels": 33, "prompt_shape": "random_patch"},
            r"^prompt_pixels: expected 0 to 32, what fits an image of 32 x 32 pixels, found 33\.",
        ),
        ({"prompt_pixels": -1}, r"^prompt_pixels: expected 0 \(in proportion\), 1 pixel or more, found -1\."),
        (
            {"prompt_shape": "patch"},
            r"^prompt_shape: expected one of padding, fixed_patch, random_patch, found 'patch'",
        ),
        ({"initial_std": -1}, r"^initial_std: expected 0 or more, found -1\.0"),
        ({"text_tokens": 4}, r"^vp has no option 'text_tokens'\."),
    ],
)
def test_bad_options_are_one_line(backbone: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        make(backbone, **options)
    assert "\n" not in str(caught.value)


def test_a_patch_may_fill_the_image(backbone: Any) -> None:
    vp = make(backbone, prompt_shape="random_patch", prompt_pixels=SIDE)
    assert vp.pixel_prompt().all() and vp.losses(images_of(3), LABELS)["total"].isfinite()
