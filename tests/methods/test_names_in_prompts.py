"""Prompts that say other names than the labels, and several: every method, with its own features as the reference."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from daptune.errors import MethodError
from daptune.methods import METHODS, Method, make_config

from .conftest import NAMES, make_pictures

MANY = {"1": ("cat", "sea lake"), "2": ("dog",), "猫": ("truck", "river", "bird")}
FLAT = [name for own in MANY.values() for name in own]
CASES: list[tuple[str, dict[str, object]]] = [
    *((name, {}) for name, method in METHODS.items() if method.reads_names() and name != "cocoop"),
    ("zero_shot", {"ensemble": True}),
    ("coop", {"class_position": "middle"}),
    ("coop", {"class_position": "front"}),
    ("taskres", {"official_base": True}),
    ("proda", {"prompts": 4}),
    ("clip_lora", {"encoder": "vision"}),
]


def build(name: str, names: Any, options: dict[str, object], backbone: Any) -> Method:
    return METHODS[name](backbone, names, make_config(name, options)).eval()


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@torch.no_grad()
def test_a_class_has_the_normalised_mean_of_the_unit_features_of_its_names(
    name: str, options: dict[str, object], backbone: Any
) -> None:
    method, flat = build(name, MANY, options, backbone), build(name, FLAT, options, backbone)
    assert method.class_names == tuple(MANY) and method.prompt_names == tuple(MANY.values())
    weights, alone = (F.normalize(each.logit_weights(), dim=-1) for each in (method, flat))
    first = 0
    for c, own in enumerate(MANY.values()):
        rows = alone[..., first : first + len(own), :]
        first += len(own)
        if name in ("proda", "tcp"):  # averages over contexts after the names; makes tokens from the class's mean
            continue
        torch.testing.assert_close(weights[..., c, :], F.normalize(rows.mean(-2), dim=-1), rtol=1e-4, atol=1e-5)
    if name == "proda":
        parts, ones = method.prompt_features(range(4)), flat.prompt_features(range(4))  # type: ignore[operator]
        torch.testing.assert_close(parts[:, 0], F.normalize(ones[:, :2].mean(1), dim=-1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(parts[:, 2], F.normalize(ones[:, 3:].mean(1), dim=-1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_cocoop_averages_for_each_image(backbone: Any) -> None:
    method, flat = (build("cocoop", names, {}, backbone) for names in (MANY, FLAT))
    z = F.normalize(torch.randn(2, backbone.clip.config.embed_dim, generator=torch.Generator().manual_seed(1)), dim=-1)
    found, alone = method.class_features(z), flat.class_features(z)  # type: ignore[operator]
    torch.testing.assert_close(found[:, 2], F.normalize(alone[:, 3:].mean(1), dim=-1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_context_of_a_class_is_joined_with_each_of_its_names(backbone: Any) -> None:
    options: dict[str, object] = {"class_specific": True, "text_tokens": 2}
    method, flat = (build("coop", names, options, backbone) for names in (MANY, FLAT))
    flat.text_prompt.copy_(method.text_prompt[[0, 0, 1, 2, 2, 2]])
    alone = flat.text_features()
    torch.testing.assert_close(method.text_features()[0], F.normalize(alone[:2].mean(0), dim=-1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.text_features()[2], F.normalize(alone[3:].mean(0), dim=-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_one_name_each_gives_the_same_bits_as_labels(name: str, backbone: Any) -> None:
    images = make_pictures(len(NAMES), 1).images
    labels = {str(place): name for place, name in enumerate(NAMES)}
    assert torch.equal(build(name, NAMES, {}, backbone)(images), build(name, labels, {}, backbone)(images))


def test_learned_contexts_get_gradients_through_several_names(backbone: Any) -> None:
    method = build("dapt", MANY, {"intra_weight": 0.0}, backbone).train()
    pictures = make_pictures(3, 2)
    method.losses(pictures.images, pictures.labels)["total"].backward()
    assert method.text_prompt.grad is not None and method.text_prompt.grad.abs().sum() > 0


def test_new_classes_may_have_names_too(backbone: Any) -> None:
    method = build("coop", NAMES, {}, backbone).with_classes(MANY)
    assert method.names == MANY and method.class_names == ("1", "2", "猫")
    with pytest.raises(MethodError, match="class 'x': expected a name of letters, found ''"):
        method.with_classes({"x": ""})


def test_which_methods_read_names() -> None:
    assert [name for name, method in METHODS.items() if not method.reads_names()] == ["prototype", "linear_probe"]
