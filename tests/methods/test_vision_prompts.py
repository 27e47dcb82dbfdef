"""VPT's tokens: first values, depth, position, sequence length, features and gradients against plain code."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from daptune.errors import MethodError
from daptune.methods import METHODS, make_config
from daptune.methods.vision_prompts import POSITIONS
from daptune.methods.vpt import VPT, VPTConfig

from ..clip.test_model import CONFIG, made_up_clip, plain_image
from .conftest import NAMES, MadeUp


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("depth", [1, 2, 0])
def test_features_and_gradients_equal_the_plain_tower(backbone: Any, depth: int, position: str) -> None:
    vpt = VPT(backbone, NAMES, VPTConfig(vision_tokens=4, vision_depth=depth, vision_position=position))
    with torch.no_grad():
        vpt.vision_prompt.mul_(5)
    layers = depth or CONFIG.vision_layers
    assert vpt.vision_prompt.shape == ((layers, 4, 32) if layers > 1 else (4, 32))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    prompts = vpt.vision_prompt.unsqueeze(0) if layers == 1 else vpt.vision_prompt
    where = {"after_ln_pre": "beside", "append": "end"}[position]
    plain = torch.stack([plain_image(backbone.clip, image, prompts, where) for image in images])
    plain = plain / plain.norm(dim=-1, keepdim=True)
    ours = vpt.image_features(images)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    weights = torch.randn(2, 24, generator=torch.Generator().manual_seed(2))
    (found,) = torch.autograd.grad((ours * weights).sum(), vpt.vision_prompt)
    (expected,) = torch.autograd.grad((plain * weights).sum(), vpt.vision_prompt)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_first_values_fill_vpts_bounds(backbone: Any) -> None:
    bound = math.sqrt(6 / (3 * 8 * 8 + 32))
    values = VPT(backbone, NAMES, VPTConfig(vision_tokens=200)).vision_prompt.detach()
    assert values.dtype == torch.float32 and float(values.abs().max()) <= bound
    assert float(values.abs().max()) > 0.98 * bound and float(values.std()) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_the_bound_of_vit_b_16_is_a_sixteenth() -> None:
    assert math.sqrt(6 / (3 * 16 * 16 + 768)) == 0.0625


def test_appended_tokens_are_normal_with_deviation_0_02(backbone: Any) -> None:
    values = VPT(backbone, NAMES, VPTConfig(vision_tokens=200, vision_position="append")).vision_prompt.detach()
    assert float(values.std()) == pytest.approx(0.02, rel=0.05) and abs(float(values.mean())) < 0.002


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 147_456), ({"vision_depth": 1}, 12_288), ({"vision_depth": 12, "vision_tokens": 8}, 73_728)],
)
def test_parameter_counts_of_vit_b_16(vit_b_16: Any, options: dict[str, Any], count: int) -> None:
    assert METHODS["vpt"](vit_b_16, NAMES, make_config("vpt", options)).parameter_count == count


def test_sixteen_tokens_make_a_sequence_of_213(tokenizer: Any) -> None:
    sizes = replace(CONFIG, image_size=224, patch_size=16, context_length=77, vocab_size=tokenizer.vocab_size)
    vpt = VPT(MadeUp(made_up_clip(sizes), tokenizer), NAMES)  # type: ignore[arg-type]
    lengths: list[int] = []
    for block in vpt.clip.visual.transformer.blocks[:-1]:
        block.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    vpt.image_features(torch.zeros(1, 3, 224, 224))
    assert lengths == [1 + 16 + 196] * 2 == [213] * 2


def test_more_layers_than_the_tower_has_are_refused(backbone: Any) -> None:
    with pytest.raises(MethodError, match=r"vision_depth: expected 0 \(every layer\) to 3, .*found 4.*vision_depth=3"):
        VPT(backbone, NAMES, VPTConfig(vision_depth=4))


def test_the_text_classifier_stays_zero_shot(backbone: Any) -> None:
    vpt = VPT(backbone, NAMES, VPTConfig(dataset="EuroSAT"))
    zero_shot = METHODS["zero_shot"](backbone, NAMES, make_config("zero_shot", {"dataset": "EuroSAT"}))
    assert torch.equal(vpt.text_features(), zero_shot.text_features())
    losses = vpt.losses(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    assert set(losses) == {"cross_entropy", "total"} and set(vpt.state_dict()) == {"vision_prompt"}
