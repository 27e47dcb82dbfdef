"""Attention as the towers do it for speed, against torch's way of writing it."""

import pytest
import torch
import torch.nn.functional as F

from daptune.clip.blocks import attend

GENERATOR = torch.Generator().manual_seed(3)


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=dtype)


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 3)])
@pytest.mark.parametrize("hiding", ["nothing", "mask", "causal"])
@pytest.mark.parametrize("fused", [False, True])
def test_16_bit_attention_of_processors(
    shape: tuple[int, ...], hiding: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daptune.clip.blocks.FUSED_FORWARD", fused)
    if hiding == "causal" and len(shape) == 3:
        pytest.skip("only whole sequences are causal")
    exact = [normal(*shape, 9, 8, dtype=torch.float32) for _ in range(3)]
    mask = torch.zeros(9, 9).masked_fill(torch.rand(9, 9, generator=GENERATOR) < 0.5, -torch.inf).fill_diagonal_(0)
    mask = mask if hiding == "mask" else None
    low = [part.bfloat16().requires_grad_() for part in exact]
    exact = [part.detach().float().requires_grad_() for part in low]
    found = attend(*low, mask=None if mask is None else mask.bfloat16(), causal=hiding == "causal")
    expected = F.scaled_dot_product_attention(*exact, attn_mask=mask, is_causal=hiding == "causal")
    torch.testing.assert_close(found.float(), expected, atol=2e-2, rtol=2e-2)
    with torch.no_grad():
        alone = attend(*low, mask=None if mask is None else mask.bfloat16(), causal=hiding == "causal")
    torch.testing.assert_close(alone.float(), expected, atol=2e-2, rtol=2e-2)
    direction = torch.randn(expected.shape, generator=GENERATOR)
    for a, b in zip(
        torch.autograd.grad((found * direction).sum(), low),
        torch.autograd.grad((expected * direction).sum(), exact),
        strict=True,
    ):
        torch.testing.assert_close(a.float(), b, atol=5e-2, rtol=5e-2)


def test_long_16_bit_sequences_keep_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [normal(1, 2, 9, 8, dtype=torch.float32).bfloat16().requires_grad_() for _ in range(3)]
    plain = attend(*parts)
    monkeypatch.setattr("daptune.clip.blocks.PLAIN_ATTENTION_KEYS", {})
    torch.testing.assert_close(attend(*parts), plain, atol=2e-2, rtol=2e-2)
