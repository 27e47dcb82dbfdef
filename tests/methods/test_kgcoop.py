"""KgCoOp: the distance from the frozen features, its weight, templates, first context."""

import math
from typing import Any

import pytest
import torch

from daptune.errors import MethodError
from daptune.methods import METHODS, make_config
from daptune.methods.kgcoop import KgCoOp, KgCoOpConfig

from .conftest import NAMES
from .plain import check_gradients, images_of, plain_cross_entropy, plain_prompted_text

LABELS = torch.tensor([1, 3, 0])


@pytest.mark.parametrize(
    ("dataset", "template"),
    [
        ("", "a photo of a {}."),
        ("eurosat", "a centered satellite photo of {}."),
        ("dtd", "a photo of a {}, a type of texture."),  # not CoOp's "{} texture."
    ],
)
def test_losses_and_gradients_are_the_written_out_sums(backbone: Any, dataset: str, template: str) -> None:
    kgcoop = KgCoOp(backbone, NAMES, KgCoOpConfig(dataset=dataset, knowledge_weight=3.0))
    with torch.no_grad():
        kgcoop.text_prompt.add_(0.1 * torch.randn(4, 16, generator=torch.Generator().manual_seed(1)))
    images = images_of(3)
    losses = kgcoop.losses(images, LABELS)
    assert set(losses) == {"cross_entropy", "knowledge", "total"}

    names = [name.replace("_", " ") for name in NAMES]
    w = torch.stack([plain_prompted_text(backbone, f"X X X X {name}.", [kgcoop.text_prompt]) for name in names])
    frozen = [backbone.clip.encode_text(backbone.tokenizer([template.format(name)]))[0] for name in names]
    distance = sum(1 - sum(a * b for a, b in zip(w[c], f / f.norm(), strict=True)) for c, f in enumerate(frozen)) / 4
    z = backbone.clip.encode_image(images)
    ce = plain_cross_entropy(100 * z / z.norm(dim=-1, keepdim=True) @ w.mT, LABELS)
    torch.testing.assert_close(losses["knowledge"], distance, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses["total"], ce + 3 * distance, atol=1e-4, rtol=1e-5)
    check_gradients(losses["total"], ce + 3 * distance, [kgcoop.text_prompt])


def test_without_its_weight_it_is_coop_and_starts_on_the_template(backbone: Any) -> None:
    kgcoop = KgCoOp(backbone, NAMES, KgCoOpConfig(knowledge_weight=0))
    coop = METHODS["coop"](backbone, NAMES, make_config("coop", {"context_init": "a photo of a"}))
    losses, expected = (m.losses(images_of(3), LABELS) for m in (kgcoop, coop))
    assert torch.equal(losses["total"], expected["total"])
    assert losses["knowledge"].item() == pytest.approx(0, abs=1e-6)  # "a photo of a {}." on both sides
    assert set(kgcoop.state_dict()) == {"text_prompt"}


def test_half_of_a_squared_distance(backbone: Any) -> None:
    kgcoop = KgCoOp(backbone, NAMES, KgCoOpConfig(dataset="eurosat"))
    knowledge = kgcoop.losses(images_of(3), LABELS)["knowledge"].item()
    pairs = zip(kgcoop.text_features().tolist(), kgcoop.knowledge().tolist(), strict=True)
    squared = [math.dist(a, b) ** 2 for a, b in pairs]
    assert knowledge == pytest.approx(sum(squared) / 4 / 2, rel=1e-4)


def test_new_classes_get_frozen_features_of_their_own(backbone: Any) -> None:
    kgcoop = KgCoOp(backbone, NAMES)
    kgcoop.losses(images_of(3), LABELS)
    other = kgcoop.with_classes(NAMES[1:])
    assert other.frozen_features is None
    torch.testing.assert_close(other.knowledge(), kgcoop.knowledge()[1:], atol=1e-6, rtol=1e-5)


def test_parameter_count_of_vit_b_16(vit_b_16: Any) -> None:
    assert KgCoOp(vit_b_16, NAMES).parameter_count == 2_048


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"knowledge_weight": -1}, r"^knowledge_weight: expected 0 or more, found -1.0\."),
        ({"text_tokens": 8}, r"^text_tokens: expected 4 \(context_init's\) or an empty context_init, found 8\."),
        ({"vision_tokens": 8}, r"^kgcoop has no option 'vision_tokens'\."),
        ({"templates": "a {}.", "dataset": "dtd"}, r"^templates: expected none beside"),
    ],
)
def test_bad_options_are_one_line(backbone: Any, options: dict[str, object], message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        KgCoOp(backbone, NAMES, make_config("kgcoop", options))
    assert "\n" not in str(caught.value)


def test_other_words_and_noise_set_the_number_of_tokens(backbone: Any) -> None:
    for options, tokens in (
        ({"context_init": "this is a blurry photo of a"}, 7),
        ({"context_init": "", "text_tokens": 8}, 8),
    ):
        assert KgCoOp(backbone, NAMES, make_config("kgcoop", options)).parameter_count == 16 * tokens
