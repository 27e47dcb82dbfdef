"""The transport plan against Sinkhorn's iterations written out, and against the linear programme it stands near."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from daptune.errors import MethodError
from daptune.methods.transport import TransportConfig, similarities, transport_plan


def plain_plans(pairs: list[Tensor], epsilon: float = 0.1, together: bool = False) -> list[Tensor]:
    """Plans (N, G) of similarities (N, G), entry by entry in float64; all stop at once where `together`."""
    sizes = [(len(s), len(s[0])) for s in pairs]
    kernels = [[[math.exp(-(1 - float(x)) / epsilon) for x in row] for row in s] for s in pairs]
    r, c = [[1.0] * g for _, g in sizes], [[1.0] * n for n, _ in sizes]
    moving = set(range(len(pairs)))
    for _ in range(100):
        changes = {}
        for i in moving:
            n, g = sizes[i]
            old = r[i]
            r[i] = [1 / g / sum(kernels[i][a][b] * c[i][a] for a in range(n)) for b in range(g)]
            c[i] = [1 / n / sum(kernels[i][a][b] * r[i][b] for b in range(g)) for a in range(n)]
            changes[i] = sum(abs(new - was) for new, was in zip(r[i], old, strict=True)) / g
        mean = sum(changes.values()) / len(changes)
        moving -= {i for i in changes if (mean if together else changes[i]) < 1e-2}
        if not moving:
            break
    rows = (
        [[c[i][a] * kernels[i][a][b] * r[i][b] for b in range(sizes[i][1])] for a in range(sizes[i][0])]
        for i in range(len(pairs))
    )
    return [torch.tensor(plan) for plan in rows]


def made_up(*shape: int, scale: float = 0.2, seed: int = 0) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale + 0.2).clamp(-1, 1)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("epsilon", [0.1, 0.3])
@pytest.mark.parametrize(("prompts", "parts"), [(4, 16), (4, 4), (1, 5), (3, 1)])
def test_the_plan_is_the_one_written_out(prompts: int, parts: int, epsilon: float, together: bool) -> None:
    similarity = made_up(3, 5, prompts, parts)
    plain = torch.stack(plain_plans(list(similarity.flatten(0, 1)), epsilon, together)).view_as(similarity)
    plan = transport_plan(similarity, epsilon, together=together)
    torch.testing.assert_close(plan, plain, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(plan.sum(-1), torch.full((3, 5, prompts), 1 / prompts))
    assert (plan.sum(-2) * parts - 1).abs().max() < 0.1
    assert not transport_plan(similarity.requires_grad_(), epsilon).requires_grad


def test_an_image_s_plan_is_its_own_unless_the_batch_stops_together() -> None:
    similarity = torch.cat([made_up(1, 5, 4, 4, scale=0.3), made_up(30, 5, 4, 4, scale=0.02) + 0.6])
    plans = [transport_plan(similarity[rows], 0.1, together=t) for t in (False, True) for rows in (slice(31), slice(1))]
    torch.testing.assert_close(plans[0][:1], plans[1], atol=0, rtol=0)
    assert (plans[2][:1] - plans[3]).abs().max() > 1e-4


def test_its_cost_is_near_the_least_there_is() -> None:
    """Exact transport by a linear programme: none of these marginals is cheaper, and entropy costs epsilon log NG."""
    prompts, parts = 4, 6
    for similarity in made_up(6, prompts, parts, scale=0.3):
        cost = (1 - similarity).double().numpy().ravel()
        sums = [np.kron(np.eye(prompts), np.ones(parts)), np.kron(np.ones(prompts), np.eye(parts))]
        marginals = np.r_[np.full(prompts, 1 / prompts), np.full(parts, 1 / parts)]
        least = linprog(cost, A_eq=np.vstack(sums), b_eq=marginals).fun
        plan = transport_plan(similarity[None, None], 0.05)[0, 0].double().numpy().ravel()
        assert least - 5e-3 < plan @ cost < least + 0.05 * math.log(prompts * parts)


@pytest.mark.parametrize("epsilon", [0.05, 0.1, 10.0])
def test_no_similarity_makes_a_nan(epsilon: float) -> None:
    """Where features are opposite, equal or both: exp(-20) is 0 in the fp16 of the official code."""
    signs = torch.stack([-torch.ones(4, 6), torch.ones(4, 6), 2 * torch.eye(4, 6) - 1, 1 - 2 * torch.eye(4, 6)])
    plan = transport_plan(signs.unsqueeze(0), epsilon)
    assert plan.isfinite().all() and (plan >= 0).all()
    torch.testing.assert_close(plan.sum((-2, -1)), torch.ones(1, 4))
    torch.testing.assert_close(plan[0, :2], torch.full((2, 4, 6), 1 / 24))


def test_similarities_are_the_cosines_of_every_pair() -> None:
    image, text = made_up(2, 5, 7), made_up(3, 4, 7, seed=1)
    found = similarities(image, text)
    assert found.shape == (2, 4, 3, 5)
    for b, c, n, g in np.ndindex(found.shape):
        torch.testing.assert_close(found[b, c, n, g], (image[b, g] * text[n, c]).sum(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.049, -1.0, float("nan")])
def test_too_little_entropy_is_one_line(value: float) -> None:
    with pytest.raises(MethodError, match=r"^regularization: expected (0\.05 or more|a finite number), ") as caught:
        TransportConfig(regularization=value)
    assert "\n" not in str(caught.value)
