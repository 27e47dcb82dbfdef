"""The prompted text tower written out: one text of 77 tokens, one block at a time, prompts put in place."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..clip.test_model import plain_block, plain_norm


def plain_prompted_text(backbone: Any, text: str, layers: Sequence[Tensor], unit: bool = True) -> Tensor:
    """The feature (D,) of `text`, padded to 77 tokens, layers[j] (M, W) put at places 1..M before block j."""
    clip = backbone.clip
    ids = backbone.tokenizer([text])[0]
    assert len(ids) == 77
    x = put(clip.text.token_embedding(ids), layers[0]) + clip.text.positional_embedding
    for layer, block in enumerate(clip.text.transformer.blocks):
        if 0 < layer < len(layers):
            x = put(x, layers[layer])
        x = plain_block(block, x, True, clip.config.activation)
    eot = int(ids.argmax())
    feature = plain_norm(clip.text.ln_final, x[eot : eot + 1])[0] @ clip.text.text_projection
    return feature / feature.norm() if unit else feature


def put(x: Tensor, tokens: Tensor) -> Tensor:
    """x (L, W) with `tokens` (M, W) at places 1..M."""
    return torch.cat([x[:1], tokens, x[1 + len(tokens) :]])


def images_of(count: int, side: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def plain_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over images of log sum_c exp(logit_c) - logit_y, one image at a time."""
    rows = [row.exp().sum().log() - row[int(y)] for row, y in zip(logits.double(), labels, strict=True)]
    return torch.stack(rows).mean().float()


def check_gradients(ours: Tensor, plain: Tensor, tensors: Sequence[Tensor]) -> None:
    """Both scalars have the same gradient with respect to each of `tensors`, relative to its largest entry."""
    found, expected = (torch.autograd.grad(scalar, tensors) for scalar in (ours, plain))
    for f, e in zip(found, expected, strict=True):
        assert e.any()
        torch.testing.assert_close(f / e.abs().max(), e / e.abs().max(), atol=1e-5, rtol=1e-4)
