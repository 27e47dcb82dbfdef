"""The losses and their gradients against plain loops."""

import math

import pytest
import torch
from torch import Tensor

from daptune.methods import losses
from daptune.methods.losses import cross_entropy, inter_dispersion, intra_dispersion


def unit(rows: int, width: int, seed: int = 0) -> Tensor:
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True)


def test_cross_entropy_equals_the_loop() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([3, 0, 0, 2, 1])
    rows = logits.tolist()
    plain = sum(math.log(sum(map(math.exp, row))) - row[y] for row, y in zip(rows, labels.tolist(), strict=True)) / 5
    found = cross_entropy(logits, labels)
    assert found.item() == pytest.approx(plain, abs=1e-6)
    found.backward()
    for b, row in enumerate(rows):
        for c, value in enumerate(row):
            expected = (math.exp(value) / sum(map(math.exp, row)) - int(c == labels[b])) / 5
            assert logits.grad is not None and float(logits.grad[b, c]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("t", [0.5, 2.0])
@pytest.mark.parametrize("rows", [1, 3, 1024])
def test_inter_dispersion_and_its_gradient_equal_the_loop(t: float, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "ROWS", rows)
    w = unit(7, 5).float().requires_grad_()
    exact = w.detach().double().tolist()
    total, gradient, pairs = 0.0, [[0.0] * 5 for _ in range(7)], 0
    for m in range(7):
        for n in range(m + 1, 7):
            squared = sum((a - b) ** 2 for a, b in zip(exact[m], exact[n], strict=True))
            kernel = math.exp(-t * squared)
            total, pairs = total + kernel, pairs + 1
            for d in range(5):
                slope = -2 * t * kernel * (exact[m][d] - exact[n][d])
                gradient[m][d] += slope
                gradient[n][d] -= slope
    found = inter_dispersion(w, t)
    assert pairs == 21 and found.item() == pytest.approx(total / pairs, rel=1e-6)
    found.backward()
    torch.testing.assert_close(w.grad, torch.tensor(gradient) / pairs, atol=1e-6, rtol=1e-5)


def test_inter_dispersion_equals_the_official_expression() -> None:
    w = unit(9, 6).float()
    ours, theirs = w.clone().requires_grad_(), w.clone().requires_grad_()
    found, expected = inter_dispersion(ours), torch.pdist(theirs, p=2).pow(2.0).mul(-2.0).exp().mean()
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-6)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-7, rtol=1e-5)


def test_orthonormal_features_give_exp_minus_4() -> None:
    assert float(inter_dispersion(torch.eye(6))) == pytest.approx(math.exp(-4), rel=1e-6)


@pytest.mark.parametrize("only", [unit(1, 4).float(), torch.tensor([[0.6, -0.6, 0.8, -0.8]])])
def test_one_class_has_no_pairs(only: Tensor) -> None:
    w = only.clone().requires_grad_()
    inter_dispersion(w).backward()
    assert inter_dispersion(w).item() == 0 and w.grad is not None and not w.grad.any()


def test_two_classes_are_one_pair() -> None:
    """Vectors of one sixth of a turn: of length 1, and 1 apart."""
    w = torch.tensor([[1.0, 0.0], [0.5, 3**0.5 / 2]])
    assert inter_dispersion(w, 1.5).item() == pytest.approx(math.exp(-1.5), rel=1e-5)


def test_kernels_of_many_classes_are_not_kept_for_the_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix of 40 x 40 is kept, those of 41 classes are computed anew; without a gradient nothing is kept at all."""
    monkeypatch.setattr(losses, "ROWS", 40)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    for classes, most in ((40, 40 * 40), (41, 41 * 3)):
        w, kept[:] = unit(classes, 3).float().requires_grad_(), []
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found = inter_dispersion(w)
        assert max(kept) == most
        (slope,) = torch.autograd.grad(found, w)  # which is what a loop of one's own calls
        assert slope.any()
    with torch.no_grad():
        assert inter_dispersion(w).item() == pytest.approx(found.item())


def test_coinciding_features_repel_each_other_nowhere() -> None:
    w = unit(1, 4).float().expand(3, -1).clone().requires_grad_()
    found = inter_dispersion(w)
    found.backward()
    assert found.item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(w.grad, torch.zeros(3, 4), atol=1e-6, rtol=0)


def test_inter_dispersion_is_float32_whatever_comes_in() -> None:
    w = unit(6, 8).bfloat16()
    assert inter_dispersion(w).dtype == torch.float32
    torch.testing.assert_close(inter_dispersion(w), inter_dispersion(w.float()))


def test_many_classes_take_the_same_value_in_blocks() -> None:
    w = unit(2500, 4).float().requires_grad_()
    found = inter_dispersion(w)
    expected = torch.exp(-2 * torch.pdist(w.detach().double()).square()).mean()
    torch.testing.assert_close(found.double(), expected, atol=1e-7, rtol=1e-5)
    found.backward()
    assert w.grad is not None and w.grad.isfinite().all() and w.grad.any()


def test_intra_dispersion_and_its_gradient_equal_the_loop() -> None:
    z, s = unit(4, 6).float().requires_grad_(), (0.8 * unit(4, 6, seed=1)).float()
    total = sum((a - b) ** 2 for x, y in zip(z.tolist(), s.tolist(), strict=True) for a, b in zip(x, y, strict=True))
    found = intra_dispersion(z, s)
    assert found.item() == pytest.approx(total / 24, rel=1e-6)
    assert (z - s).square().sum(-1).mean().item() == pytest.approx(6 * found.item(), rel=1e-6)  # the factor D
    found.backward()
    for b in range(4):
        for d in range(6):
            expected = 2 * (z[b, d] - s[b, d]).item() / 24
            assert z.grad is not None and float(z.grad[b, d]) == pytest.approx(expected, abs=1e-7)


def test_intra_dispersion_is_zero_on_the_prototypes_alone() -> None:
    z = unit(4, 6).float()
    assert intra_dispersion(z, z).item() == 0
    assert intra_dispersion(z, z + 1e-3).item() > 0


def test_weighted_cross_entropy_equals_the_loop_and_is_the_sum_over_parts() -> None:
    """Divided by the number of images, 5: then parts of a batch add up, as accumulation and processes need."""
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    labels, weight = torch.tensor([3, 0, 0, 2, 1]), torch.tensor([0.5, 2.0, 1.0, 4.0])
    rows = logits.tolist()
    terms = [
        float(weight[y]) * (math.log(sum(map(math.exp, row))) - row[y])
        for row, y in zip(rows, labels.tolist(), strict=True)
    ]
    assert cross_entropy(logits, labels, weight).item() == pytest.approx(sum(terms) / 5, abs=1e-6)
    parts = [
        cross_entropy(logits[own], labels[own], weight) * share for own, share in ((slice(3), 0.6), (slice(3, 5), 0.4))
    ]
    assert float(sum(parts)) == pytest.approx(sum(terms) / 5, abs=1e-6)
    assert cross_entropy(logits, labels, torch.ones(4)).item() == pytest.approx(cross_entropy(logits, labels).item())
