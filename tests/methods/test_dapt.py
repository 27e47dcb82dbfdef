"""DAPT and its baseline: terms, weights, who learns from what, prototypes."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from daptune.errors import MethodError
from daptune.methods import METHODS, make_config
from daptune.methods.coop_vpt import CoOpVPT
from daptune.methods.dapt import DAPT, DAPTConfig

from .conftest import NAMES, Pictures


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def gap(a: list[float], b: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def gradients(loss: Tensor, dapt: DAPT) -> tuple[Tensor | None, ...]:
    prompts = (dapt.text_prompt, dapt.vision_prompt)
    return torch.autograd.grad(loss, prompts, allow_unused=True, retain_graph=True)


def prototypes_by_hand(backbone: Any, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    members: dict[int, list[Tensor]] = {}
    for images, labels in batches:
        for image, label in zip(images, labels.tolist(), strict=True):
            feature = backbone.clip.encode_image(image[None])[0]
            members.setdefault(label, []).append(feature / feature.norm())
    return torch.stack([sum(members[c]) / len(members[c]) for c in range(len(NAMES))])  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("option", "lowest", "refused", "words"),
    [
        ("inter_weight", 0, -0.1, "0 or more, found -0.1. For example: inter_weight=0.1"),
        ("intra_weight", 0, -0.1, "0 or more, found -0.1. For example: intra_weight=0.1"),
        ("t", 0.1, 0.0, "a number above 0, found 0.0. For example: t=2.0"),
        ("prototype_views", 0, -1, "0 (no augmentation) or more views, found -1. For example: prototype_views=0"),
    ],
)
def test_options_have_bounds_and_name_them(option: str, lowest: float, refused: float, words: str) -> None:
    assert getattr(DAPTConfig(**{option: lowest}), option) == lowest  # type: ignore[arg-type]
    with pytest.raises(MethodError) as caught:
        DAPTConfig(**{option: refused})  # type: ignore[arg-type]
    assert str(caught.value) == f"{option}: expected {words}"


def test_shapes_are_those_of_the_design(vit_b_16: Any) -> None:
    dapt = DAPT(vit_b_16, NAMES)
    assert dapt.text_prompt.shape == (16, 512) and dapt.vision_prompt.shape == (16, 768)
    assert dapt.parameter_count == 20_480 == METHODS["coop_vpt"](vit_b_16, NAMES).parameter_count


def test_terms_and_total_are_the_written_out_sums(backbone: Any, pictures: Pictures) -> None:
    dapt = DAPT(backbone, NAMES, DAPTConfig(inter_weight=3.0, intra_weight=7.0, t=1.5))
    dapt.before_fit(pictures)
    images, labels = pictures.images[:5], pictures.labels[:5]
    losses = dapt.losses(images, labels)
    assert set(losses) == {"cross_entropy", "inter", "intra", "total"} and all(x.ndim == 0 for x in losses.values())
    z, w = dapt.image_features(images).tolist(), dapt.text_features().tolist()
    s = torch.Tensor.tolist(dapt.prototypes)
    rows = [[100 * dot(a, b) for b in w] for a in z]
    y = labels.tolist()
    ce = sum(math.log(sum(math.exp(v - row[c]) for v in row)) for row, c in zip(rows, y, strict=True)) / 5
    inter = sum(math.exp(-1.5 * gap(w[m], w[n])) for m in range(4) for n in range(m)) / 6
    intra = sum(gap(a, s[c]) for a, c in zip(z, y, strict=True)) / 5 / 24
    assert losses["cross_entropy"].item() == pytest.approx(ce, rel=1e-4, abs=1e-4)
    assert losses["inter"].item() == pytest.approx(inter, rel=1e-5)
    assert losses["intra"].item() == pytest.approx(intra, rel=1e-5)
    assert losses["total"].item() == pytest.approx(ce + 3 * inter + 7 * intra, rel=1e-4, abs=1e-4)
    slopes = [gradients(losses[key], dapt) for key in ("total", "cross_entropy", "inter", "intra")]
    for whole, *parts in zip(*slopes, strict=True):
        mixed = sum(f * p for f, p in zip((1, 3, 7), parts, strict=True) if p is not None)
        torch.testing.assert_close(whole, mixed, atol=1e-5, rtol=1e-4)


def test_inter_moves_the_text_prompt_alone_and_intra_the_visual(backbone: Any, pictures: Pictures) -> None:
    dapt = DAPT(backbone, NAMES)
    dapt.before_fit(pictures)
    losses = dapt.losses(pictures.images, pictures.labels)
    text, vision = gradients(losses["inter"], dapt)
    assert text is not None and text.any() and vision is None
    text, vision = gradients(losses["intra"], dapt)
    assert text is None and vision is not None and vision.any()
    text, vision = gradients(losses["cross_entropy"], dapt)
    assert text is not None and text.any() and vision is not None and vision.any()


def test_weights_of_zero_leave_the_baseline(backbone: Any, pictures: Pictures) -> None:
    options = {"inter_weight": 0, "intra_weight": 0}
    dapt = METHODS["dapt"](backbone, NAMES, make_config("dapt", options))
    baseline = CoOpVPT(backbone, NAMES)
    dapt.before_fit(pictures)
    losses, expected = (m.losses(pictures.images, pictures.labels) for m in (dapt, baseline))
    assert set(expected) == {"cross_entropy", "total"}
    assert torch.equal(losses["total"], expected["total"]) and torch.equal(losses["total"], losses["cross_entropy"])


@pytest.mark.parametrize(("inter", "intra"), [(2.0, 0.0), (0.0, 2.0)])
def test_either_loss_works_alone(backbone: Any, pictures: Pictures, inter: float, intra: float) -> None:
    dapt = DAPT(backbone, NAMES, DAPTConfig(inter_weight=inter, intra_weight=intra))
    if intra:
        dapt.before_fit(pictures)
    losses = dapt.losses(pictures.images, pictures.labels)
    expected = losses["cross_entropy"] + inter * losses["inter"] + intra * losses["intra"]
    torch.testing.assert_close(losses["total"], expected)


def test_prototypes_are_the_means_of_unit_features(backbone: Any, uneven: Pictures) -> None:
    dapt = DAPT(backbone, NAMES)
    assert dapt.prototypes is None
    dapt.before_fit(uneven)
    assert dapt.prototypes is not None and "prototypes" not in dapt.state_dict()
    expected = prototypes_by_hand(backbone, list(uneven.evaluation()))
    torch.testing.assert_close(dapt.prototypes, expected, atol=1e-6, rtol=1e-5)
    assert (dapt.prototypes.norm(dim=-1)[[0, 1, 3]] < 0.9999).all()  # not made unit again; one has a single image


@pytest.mark.parametrize("views", [1, 3])
def test_prototypes_may_average_augmented_views(backbone: Any, uneven: Pictures, views: int) -> None:
    dapt = DAPT(backbone, NAMES, DAPTConfig(prototype_views=views))
    dapt.before_fit(uneven)
    batches = [batch for view in range(views) for batch in uneven.augmented_view(view)]
    torch.testing.assert_close(dapt.prototypes, prototypes_by_hand(backbone, batches), atol=1e-6, rtol=1e-5)


def test_prototypes_can_be_set(backbone: Any, pictures: Pictures) -> None:
    dapt = DAPT(backbone, NAMES)
    with pytest.raises(MethodError, match=r"no prototypes: call before_fit\(train\), or set `prototypes` \(4, 24\)"):
        dapt.losses(pictures.images, pictures.labels)
    with torch.no_grad():
        z = dapt.image_features(pictures.images[:4])
    dapt.prototypes = z
    assert dapt.losses(pictures.images[:4], torch.arange(4))["intra"].item() < 1e-12
    dapt.prototypes = z[:3]
    with pytest.raises(MethodError, match=r"prototypes of shape \(4, 24\), found \(3, 24\)"):
        dapt.losses(pictures.images, pictures.labels)


def test_classes_without_images_are_named(backbone: Any, pictures: Pictures) -> None:
    some = pictures.labels != 1
    with pytest.raises(MethodError, match=r"^dapt expected images of every class, found none of 'sea_lake'"):
        DAPT(backbone, NAMES).before_fit(Pictures(pictures.images[some], pictures.labels[some]))
    with pytest.raises(MethodError, match=r"^dapt expected labels below 3, found 3"):
        DAPT(backbone, NAMES[:3]).before_fit(pictures)


def test_new_class_names_keep_the_prompts(backbone: Any, pictures: Pictures) -> None:
    dapt = DAPT(backbone, NAMES)
    dapt.before_fit(pictures)
    other = dapt.with_classes(["dog", "horse"])
    assert torch.equal(other.text_prompt, dapt.text_prompt) and torch.equal(other.vision_prompt, dapt.vision_prompt)
    assert other.logits(pictures.images).shape == (12, 2) and other.prototypes is None
    torch.testing.assert_close(dapt.with_classes(NAMES[::-1]).text_features(), dapt.text_features().flip(0))
