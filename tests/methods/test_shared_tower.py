"""Methods whose images may share a pass through the image tower: the features of the pass give the same logits."""

from typing import Any

import pytest
import torch
from torch import Tensor

from daptune.methods import METHODS, make_config
from daptune.methods.zero_shot import ZeroShot

from .conftest import NAMES, make_pictures
from .test_matrix import VARIANTS, build, fitted, label

ALONE = {"clip_lora", "cocoop", "linear_probe", "mmrl", "plot", "plot_pp", "prolip", "two_sfs", "vp"}
SHARING = sorted(set(METHODS) - ALONE)


def test_which_methods_share() -> None:
    assert {name for name, method in METHODS.items() if not method.shares_image_tower} == ALONE


@pytest.mark.parametrize(("name", "options"), [(n, o) for n in SHARING for o in [{}, *VARIANTS.get(n, [])]], ids=label)
def test_logits_of_features_from_a_pass_with_others(name: str, options: dict[str, object], backbone: Any) -> None:
    method, other = fitted(name, options, backbone), build(name, options, backbone, seed=2).eval()
    images = make_pictures(len(NAMES), 1, 7).images
    with torch.inference_mode():
        alone = method.logits(images)
        prompts = method.image_prompts()
        if prompts is None:
            features = backbone.clip.encode_image(images)
        else:
            assert prompts.ndim == 3 and prompts.shape[-1] == backbone.clip.config.vision_width
            theirs = other.image_prompts()
            assert theirs is not None and not torch.equal(theirs, prompts)
            mixed = torch.stack([prompts, theirs] * len(images))  # (2 B, J, P, W): own and other's in turn
            features = backbone.clip.encode_image(images.repeat_interleave(2, 0), mixed)[::2]
        torch.testing.assert_close(method.logits(features), alone, atol=1e-4, rtol=1e-5)
        probabilities = method.logits(features).softmax(-1)
        torch.testing.assert_close(probabilities, alone.softmax(-1), atol=1e-5, rtol=0)


def test_a_class_that_changes_what_an_image_meets_does_not_share_unless_it_says_so() -> None:
    class Brighter(ZeroShot):
        def image_features(self, images: Tensor) -> Tensor:
            return super().image_features(images + 1)

    class Warmer(ZeroShot):
        shares_image_tower = True

        def logits(self, images: Tensor) -> Tensor:
            return super().logits(images) / 2

    class Cooler(ZeroShot):
        sees = "features"

        def logits(self, images: Tensor) -> Tensor:
            return super().logits(images) * 2

    class Kept(ZeroShot):
        trains_on_features = True

    class Spoken(ZeroShot):
        def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return super().losses(images, labels)

    assert not Brighter.shares_image_tower and not type("Child", (Brighter,), {}).shares_image_tower
    assert Cooler.shares_image_tower and not Cooler.trains_on_features
    assert Kept.sees == "fixed features" and type("Child", (Kept,), {}).trains_on_features
    assert (
        Warmer.sees == "features"
        and Warmer.shares_image_tower
        and Spoken.shares_image_tower
        and ZeroShot.shares_image_tower
    )


def test_tokens_in_front_of_ln_pre_are_given_behind_it(backbone: Any) -> None:
    method = METHODS["vpt"](backbone, NAMES, make_config("vpt", {"vision_position": "append"}))
    images = make_pictures(len(NAMES), 1).images
    with torch.no_grad():
        expected = backbone.clip.encode_image(images, method.vision_prompt, before_ln_pre=True)
        torch.testing.assert_close(method.encode(images), expected, atol=1e-6, rtol=1e-6)
