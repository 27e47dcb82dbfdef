"""ZS-LP and CLAP: class weights, multipliers, loss and steps against plain loops, on classes of different sizes."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from daptune.errors import MethodError
from daptune.methods.clap import CLAP, CLAPConfig
from daptune.methods.zs_lp import ZSLP, ZSLPConfig

from .conftest import NAMES, Pictures

TWO = ("a photo of a {}.", "art of the {}.")
Vector = list[float]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(a: Vector) -> Vector:
    return [x / math.sqrt(dot(a, a)) for x in a]


def texts(backbone: Any, *, official: bool) -> list[Vector]:
    """t: the mean over templates of features as the tower gives them; ours scaled together to a mean length of 10."""
    rows = []
    for name in NAMES:
        spoken = [template.replace("{}", name if official else name.replace("_", " ")) for template in TWO]
        features = [backbone.clip.encode_text(backbone.tokenizer([text]))[0].double().tolist() for text in spoken]
        rows.append([sum(column) / 2 for column in zip(*features, strict=True)])
    mean = sum(math.sqrt(dot(row, row)) for row in rows) / len(rows)
    return rows if official else [[10 * x / mean for x in row] for row in rows]


def with_residual(method: ZSLP) -> ZSLP:
    torch.nn.init.normal_(method.residual, std=0.5, generator=torch.Generator().manual_seed(3))
    return method


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("kind", [(ZSLP, ZSLPConfig), (CLAP, CLAPConfig)], ids=["zs_lp", "clap"])
def test_logits_are_scaled_cosines_to_the_moved_texts(
    kind: tuple[Any, Any], official: bool, backbone: Any, uneven: Pictures
) -> None:
    method = with_residual(kind[0](backbone, NAMES, kind[1](official_base=official, templates=TWO)))
    base, x = texts(backbone, official=official), method.residual.double().tolist()
    w = [unit([a + b for a, b in zip(*pair, strict=True)]) for pair in zip(base, x, strict=True)]
    z = [unit(row) for row in backbone.clip.encode_image(uneven.images[:3]).double().tolist()]
    expected = [[float(method.scale) * dot(row, of_class) for of_class in w] for row in z]
    np.testing.assert_allclose(
        method.logits(uneven.images[:3]).detach().numpy() / 100, np.array(expected) / 100, atol=1e-5
    )


@pytest.mark.parametrize("views", [0, 1, 3])
def test_a_multiplier_is_the_mean_probability_of_its_class(views: int, backbone: Any, uneven: Pictures) -> None:
    """Over the views and images of the class: 2, 5, 1 and 3 images, so that the means over rows and classes differ."""
    backbone.clip.logit_scale.data.fill_(math.log(4))  # at 100, the random tower is sure of one class
    method = CLAP(backbone, NAMES, CLAPConfig(templates=TWO, multiplier_views=views))
    method.before_fit(uneven)
    w = [unit(row) for row in texts(backbone, official=False)]
    sums, counts = [0.0] * 4, [0] * 4
    for batches in [uneven.augmented_view(view) for view in range(views)] or [uneven.evaluation()]:
        for images, labels in batches:
            for f, c in zip(backbone.clip.encode_image(images).double().tolist(), labels.tolist(), strict=True):
                powers = [math.exp(float(method.scale) * dot(unit(f), row)) for row in w]
                sums[c] += powers[c] / sum(powers)
                counts[c] += 1
    expected = [total / count for total, count in zip(sums, counts, strict=True)]
    np.testing.assert_allclose(method.multipliers.numpy(), expected, atol=1e-5)
    assert all(0 < value < 1 for value in expected) and set(method.state_dict()) == {"residual"}


def test_a_class_without_images_is_held_fully(backbone: Any, uneven: Pictures) -> None:
    backbone.clip.logit_scale.data.fill_(math.log(4))
    method = CLAP(backbone, [*NAMES, "zebra"])
    method.before_fit(uneven)
    assert method.multipliers[4] == 1 and (method.multipliers[:4] < 1).all() and method.multipliers.isfinite().all()


def test_the_loss_adds_the_mean_over_classes_of_the_held_distances(backbone: Any, uneven: Pictures) -> None:
    method = with_residual(CLAP(backbone, NAMES, CLAPConfig(templates=TWO, constraint_weight=0.5)))
    method.before_fit(uneven)
    terms = method.losses(uneven.images, uneven.labels)
    logits, rows = method.logits(uneven.images).double().tolist(), uneven.labels.tolist()
    cross_entropy = sum(
        math.log(sum(math.exp(v - row[y]) for v in row)) for row, y in zip(logits, rows, strict=True)
    ) / len(rows)
    held = sum(m * dot(x, x) for m, x in zip(method.multipliers.tolist(), method.residual.tolist(), strict=True)) / 4
    assert terms["constraint"].item() == pytest.approx(held, rel=1e-5)
    assert terms["total"].item() == pytest.approx(cross_entropy + 0.5 * held, rel=1e-5)
    start = CLAP(backbone, NAMES)
    start.before_fit(uneven)
    assert start.losses(uneven.images, uneven.labels)["constraint"].item() == 0


def test_steps_are_those_on_the_weights_themselves(backbone: Any, uneven: Pictures) -> None:
    """Official: W starts at t and is held by lambda_c |w_c - t_c|^2; SGD with momentum 0.9 and the rate 0.1."""
    method = CLAP(backbone, NAMES, CLAPConfig(official_base=True, templates=TWO, multiplier_views=2))
    method.before_fit(uneven)
    t = torch.tensor(texts(backbone, official=True), dtype=torch.float64)
    z = torch.nn.functional.normalize(backbone.clip.encode_image(uneven.images).double(), dim=-1)
    w = t.clone().requires_grad_()
    theirs, ours = (torch.optim.SGD(p, lr=0.1, momentum=0.9) for p in ([w], method.parameters()))
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(
            float(method.scale) * z @ torch.nn.functional.normalize(w, dim=-1).T, uneven.labels
        )
        loss = loss + (method.multipliers.double() * ((w - t) ** 2).sum(1)).mean()
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        ours.zero_grad()
        method.losses(uneven.images, uneven.labels)["total"].backward()
        ours.step()
    assert (w - t).abs().max() > 1e-3
    torch.testing.assert_close((t + method.residual.double()).detach(), w.detach(), atol=1e-5, rtol=1e-5)


def test_sizes_and_refusals(vit_b_16: Any, backbone: Any) -> None:
    for kind in (ZSLP, CLAP):
        assert kind(vit_b_16, NAMES).parameter_count == 4 * 512
        with pytest.raises(MethodError, match="cannot take new class names"):
            kind(backbone, NAMES).with_classes(["dog"])
    for options in ({"constraint_weight": -1}, {"multiplier_views": -1}):
        with pytest.raises(MethodError, match="expected"):
            CLAPConfig(**options)
