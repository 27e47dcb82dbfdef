"""Products with frozen matrices, as oneDNN's layout makes them fast, against torch's way of writing them."""

import gc
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daptune.clip import frozen
from daptune.clip.blocks import MLP
from daptune.clip.frozen import QuickGELUMLP, linear, packable, packs_made_anew

GENERATOR = torch.Generator().manual_seed(3)
packs = pytest.mark.skipif(torch.float32 not in frozen.PACKABLE, reason="oneDNN's layout is for x86 processors")


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=dtype)


def parameter(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(normal(*shape, dtype=torch.float32).to(dtype), requires_grad=False)


@pytest.fixture
def matrix() -> nn.Parameter:
    return parameter(24, 16)


def copies(matrix: Tensor) -> int:
    return len(frozen._packs.get(matrix, {}))


TOLERANCE = {torch.float32: {"atol": 1e-5, "rtol": 1e-5}, torch.bfloat16: {"atol": 6e-2, "rtol": 2e-2}}


@packs
@pytest.mark.parametrize("dtype", sorted(frozen.PACKABLE, key=str), ids=str)
@pytest.mark.parametrize("rows", [slice(None), slice(8, 24)], ids=str)
@pytest.mark.parametrize("arranged", [lambda x: x, lambda x: x.mT.contiguous().mT], ids=["dense", "transposed"])
@pytest.mark.parametrize("expanded", [False, True])
def test_linear_and_its_gradient(
    dtype: torch.dtype, rows: slice, arranged: Callable[[Tensor], Tensor], expanded: bool
) -> None:
    matrix, bias = parameter(24, 16, dtype=dtype), parameter(24, dtype=dtype)
    x = arranged(normal(2, 5, 16, dtype=torch.float32).to(dtype)).requires_grad_()
    found = linear(x, matrix, bias, rows)
    expected = F.linear(x.float(), matrix[rows].float(), bias[rows].float())
    assert found.dtype == dtype and copies(matrix) == 1
    torch.testing.assert_close(found.float(), expected, **TOLERANCE[dtype])
    direction = torch.ones(()).expand(found.shape) if expanded else normal(*found.shape, dtype=torch.float32)
    (gradient,) = torch.autograd.grad(found, x, direction.to(dtype))
    (plain,) = torch.autograd.grad(expected, x, direction.to(dtype).float())
    torch.testing.assert_close(gradient.float(), plain.float(), **TOLERANCE[dtype])
    assert copies(matrix) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("frozen_matrices", [True, False])
def test_quick_gelu_mlp_and_its_gradient(dtype: torch.dtype, frozen_matrices: bool) -> None:
    shapes = (12, 8), (12,), (8, 12), (8,)
    weights = [normal(*shape).to(dtype) for shape in shapes]
    if frozen_matrices:
        weights = [nn.Parameter(weight, requires_grad=False) for weight in weights]
    x = normal(2, 3, 8).to(dtype).requires_grad_()
    exact = [weight.double() for weight in weights]
    hidden = F.linear(x.double(), exact[0], exact[1])
    plain = F.linear(hidden * torch.sigmoid(1.702 * hidden), exact[2], exact[3])
    close = TOLERANCE.get(dtype, {"atol": 1e-9, "rtol": 1e-9})
    if dtype == torch.bfloat16:
        close = {"atol": 0.1, "rtol": 3e-2}
    found = QuickGELUMLP.apply(x, *weights)
    torch.testing.assert_close(found.double(), plain, **close)
    direction = normal(2, 3, 8).to(dtype)
    (gradient,) = torch.autograd.grad(found, x, direction)
    (expected,) = torch.autograd.grad(plain, x, direction.double())
    torch.testing.assert_close(gradient.double(), expected.double(), **close)


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


@packs
@pytest.mark.parametrize("dtype", sorted(frozen.PACKABLE, key=str), ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_without_a_gradient_the_activation_is_part_of_the_product(activation: str, dtype: torch.dtype) -> None:
    mlp = MLP(16, 24, activation).requires_grad_(False)
    for weights in mlp.parameters():
        weights.data = normal(*weights.shape, dtype=torch.float32).to(dtype)
    x = normal(2, 5, 16, dtype=torch.float32).to(dtype)
    double = [weights.double() for weights in mlp.parameters()]  # of c_fc, then c_proj
    expected = F.linear(ACTIVATIONS[activation](F.linear(x.double(), *double[:2])), *double[2:])
    scale = float(expected.abs().max())
    for learns in (False, True):
        found = mlp(x.clone().requires_grad_(learns))
        assert found.dtype == dtype and found.requires_grad == learns
        error = float((found.detach().double() - expected).abs().max())
        assert error < scale * {torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype]


@packs
@pytest.mark.parametrize("change", ["in place", "data", "type"])
def test_a_matrix_that_changes_is_copied_anew(matrix: nn.Parameter, change: str) -> None:
    x, bias = normal(3, 16, dtype=torch.float32), parameter(24)
    linear(x, matrix, bias)
    with torch.no_grad():
        if change == "in place":
            matrix.mul_(2)
        elif change == "data":
            matrix.data = normal(24, 16, dtype=torch.float32)
        else:
            matrix.data = matrix.data.double()
    found = linear(x.to(matrix.dtype), matrix, bias.to(matrix.dtype))
    torch.testing.assert_close(found, x.to(matrix.dtype) @ matrix.T + bias, **TOLERANCE[torch.float32])


@packs
def test_what_is_not_a_frozen_parameter_of_a_processor_is_not_copied(matrix: nn.Parameter) -> None:
    assert packable(matrix)
    others = [matrix * 1, parameter(4, 4, dtype=torch.float64), nn.Parameter(torch.ones(4, 4)), matrix.to("meta")]
    others += [nn.Parameter(matrix.to("meta"), requires_grad=False)]
    with torch.inference_mode():
        others.append(nn.Parameter(torch.ones(4, 4), requires_grad=False))
    assert not any(map(packable, others))


@packs
def test_a_bias_that_learns_gets_its_gradient(matrix: nn.Parameter) -> None:
    bias = nn.Parameter(torch.zeros(24))
    linear(torch.ones(3, 16), matrix, bias).sum().backward()
    assert bias.grad is not None and bool((bias.grad == 3).all())


@packs
def test_copies_that_are_not_kept_give_the_same_bits(matrix: nn.Parameter) -> None:
    x, bias = normal(3, 16, dtype=torch.float32).requires_grad_(), parameter(24)
    with packs_made_anew():
        found = linear(x, matrix, bias)
        (gradient,) = torch.autograd.grad(found.square().sum(), x)
        assert copies(matrix) == 0
    kept = linear(x, matrix, bias)
    assert torch.equal(found, kept) and copies(matrix) == 1
    assert torch.equal(gradient, *torch.autograd.grad(kept.square().sum(), x))


@packs
def test_copies_go_with_their_matrix(matrix: nn.Parameter) -> None:
    gc.collect()  # those of other tests
    before = len(frozen._packs)
    own = parameter(4, 4)
    linear(torch.ones(2, 4), own, parameter(4))
    assert len(frozen._packs) == before + 1
    del own
    gc.collect()
    assert len(frozen._packs) == before


@packs
def test_a_copy_that_a_prediction_made_serves_a_training(matrix: nn.Parameter) -> None:
    x, bias = normal(3, 16, dtype=torch.float32).requires_grad_(), parameter(24)
    with torch.inference_mode():
        linear(x, matrix, bias)
    torch.testing.assert_close(torch.autograd.grad(linear(x, matrix, bias).sum(), x)[0], matrix.sum(0).expand(3, -1))
