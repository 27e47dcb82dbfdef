"""LP++: first values, step sizes and the whole optimisation against autograd and torch.optim."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from daptune.errors import MethodError
from daptune.methods.lp_pp import LPPP, LPPPConfig

from .conftest import NAMES, Pictures, make_pictures


def reference(
    z: Tensor,
    y: Tensor,
    w: Tensor,
    val: tuple[Tensor, Tensor] | None,
    steps: int,
    *,
    clear: bool,
    weights: tuple[float, ...] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """METHODS B.7 with autograd and torch.optim; `clear` empties alpha's gradient before each step."""
    n, classes = len(z), len(w)
    sums = torch.stack([sum(z[i] for i in range(n) if y[i] == c) for c in range(classes)])  # type: ignore[misc]
    means = [sum(float(z[i] @ w[c]) for i in range(n) if y[i] == c) / int((y == c).sum()) for c in range(classes)]
    linear = nn.Linear(z.shape[1], classes)
    linear.weight.data, linear.bias.data = sums.clone(), torch.zeros(classes)
    alpha = torch.full((classes,), 250 * sum(means) / classes, requires_grad=True)
    of_class = torch.tensor(weights or (1.0,) * classes)
    share = of_class[y]
    rate = 4 * n / float(torch.linalg.svdvals(z * share.sqrt().unsqueeze(1))[0]) ** 2
    alpha_rate = n / (4 * max(sum(float(share[i] * (z[i] @ w[c]) ** 2) for i in range(n)) for c in range(classes)))
    optimizer = torch.optim.SGD(linear.parameters(), rate, momentum=0.9)
    copy = lambda: (linear.weight.detach().clone(), linear.bias.detach().clone(), alpha.detach().clone())  # noqa: E731
    best, kept = 0.0, copy()
    for step in range(steps):
        if clear:
            alpha.grad = None
        loss = (share * nn.functional.cross_entropy(linear(z) + alpha * (z @ w.T), y, reduction="none")).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 10 == 0:
            alpha.data -= alpha_rate * alpha.grad  # type: ignore[operator]
        if val is not None:
            hits = (linear(val[0]) + alpha * (val[0] @ w.T)).argmax(-1) == val[1]
            right = of_class[val[1]][hits].sum().item()
            if right >= best:
                best, kept = right, copy()
    return copy() if val is None else kept


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("steps", [0, 35])
def test_the_optimisation_is_the_written_out_one(
    official: bool, validated: bool, steps: int, backbone: Any, pictures: Pictures
) -> None:
    val = make_pictures(len(NAMES), 3, seed=5) if validated else None
    few = Pictures(pictures.images[:-1], pictures.labels[:-1])  # one class has fewer
    method = LPPP(backbone, NAMES, LPPPConfig(steps=steps, official_alpha=official))
    method.before_fit(few, val)
    z = torch.cat([method.image_features(images) for images, _ in few.augmented_view(0)])
    held_out = None if val is None else (method.image_features(val.images), val.labels)
    expected = reference(z, few.labels, method.text_features(), held_out, steps, clear=not official)
    for found, wanted in zip((method.weight, method.bias, method.alpha), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("validated", [False, True])
def test_weights_of_classes_count_in_steps_rates_and_the_choice(
    validated: bool, backbone: Any, pictures: Pictures
) -> None:
    weights = (0.25, 3.0, 0.5, 1.0)
    val = make_pictures(len(NAMES), 3, seed=5) if validated else None
    few = Pictures(pictures.images[:-1], pictures.labels[:-1])
    method = LPPP(backbone, NAMES, LPPPConfig(steps=35))
    method.class_weight = torch.tensor(weights)
    method.before_fit(few, val)
    z = torch.cat([method.image_features(images) for images, _ in few.augmented_view(0)])
    held_out = None if val is None else (method.image_features(val.images), val.labels)
    expected = reference(z, few.labels, method.text_features(), held_out, 35, clear=True, weights=weights)
    for found, wanted in zip((method.weight, method.bias, method.alpha), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    plain = reference(z, few.labels, method.text_features(), held_out, 35, clear=True)
    assert not torch.allclose(plain[0], expected[0], atol=1e-3)


def test_logits_are_the_written_out_sums(backbone: Any, pictures: Pictures) -> None:
    method = LPPP(backbone, NAMES, LPPPConfig(steps=5))
    method.before_fit(pictures)
    z, w = method.image_features(pictures.images[:3]).tolist(), method.text_features().tolist()
    v, b, alpha = method.weight.tolist(), method.bias.tolist(), method.alpha.tolist()
    dot = lambda p, q: sum(x * y for x, y in zip(p, q, strict=True))  # noqa: E731
    expected = [[dot(row, v[c]) + b[c] + alpha[c] * dot(row, w[c]) for c in range(4)] for row in z]
    torch.testing.assert_close(method.logits(pictures.images[:3]), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_it_learns(backbone: Any) -> None:
    train, val, test = (make_pictures(len(NAMES), shots, seed) for shots, seed in ((4, 0), (4, 1), (8, 2)))
    first, method = LPPP(backbone, NAMES, LPPPConfig(steps=0)), LPPP(backbone, NAMES, LPPPConfig(views=0))
    first.before_fit(train)
    method.before_fit(train)
    losses = [each.losses(train.images, train.labels)["total"].item() for each in (first, method)]
    assert losses[1] < losses[0]
    method.before_fit(train, val)
    assert (method.logits(test.images).argmax(-1) == test.labels).float().mean() > 0.9


def test_several_views_are_averaged_and_made_unit(backbone: Any, pictures: Pictures) -> None:
    method = LPPP(backbone, NAMES, LPPPConfig(steps=0, views=3))
    method.before_fit(pictures)
    views = [torch.cat([method.image_features(x) for x, _ in pictures.augmented_view(view)]) for view in range(3)]
    z = torch.nn.functional.normalize(sum(views), dim=-1)  # type: ignore[arg-type]
    expected = torch.stack([z[pictures.labels == c].sum(0) for c in range(4)])
    torch.testing.assert_close(method.weight, expected, atol=1e-5, rtol=1e-5)


def test_sizes_and_refusals(vit_b_16: Any, backbone: Any, pictures: Pictures) -> None:
    assert LPPP(vit_b_16, NAMES).parameter_count == 4 * 512 + 4 + 4
    method = LPPP(backbone, NAMES)
    assert not method.trainable
    with pytest.raises(MethodError, match="cannot take new class names"):
        method.with_classes(["dog"])
    with pytest.raises(MethodError, match="images of every class"):
        method.before_fit(Pictures(pictures.images[:3], pictures.labels[:3]))
    for options in ({"steps": -1}, {"views": -1}, {"momentum": 1.0}):
        with pytest.raises(MethodError, match="expected"):
            LPPPConfig(**options)
