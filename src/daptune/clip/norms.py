"""Learned layer norms of the blocks of a tower.

Both norms of each block have a weight and a bias; LayerNorm tuning learns them and nothing else of the tower. The
frozen tower is not modified: it runs through blocks given to it.
"""

import torch
from torch import Tensor, nn

from .blocks import Block, LayerNorm, Transformer


class GivenNorm(LayerNorm):
    """A frozen norm, not copied, with another weight (W,) and bias (W,)."""

    def __init__(self, frozen: LayerNorm, weight: Tensor, bias: Tensor) -> None:
        nn.Module.__init__(self)
        self.normalized_shape, self.eps = frozen.normalized_shape, frozen.eps
        self.weight, self.bias = weight, bias  # type: ignore[assignment]  # parts of a parameter


class NormedBlock(Block):
    """A frozen block, not copied, whose ln_1 and ln_2 have the weights (2, W) and biases (2, W)."""

    def __init__(self, frozen: Block, weights: Tensor, biases: Tensor) -> None:
        nn.Module.__init__(self)
        self.attn, self.mlp = frozen.attn, frozen.mlp
        self.ln_1 = GivenNorm(frozen.ln_1, weights[0], biases[0])
        self.ln_2 = GivenNorm(frozen.ln_2, weights[1], biases[1])


class Norms(nn.Module):
    """Learned weights and biases (J, 2, W) of ln_1 and ln_2 in the J blocks of a tower; at first the tower's own."""

    def __init__(self, tower: Transformer) -> None:
        super().__init__()
        pairs = [(block.ln_1, block.ln_2) for block in tower.blocks]
        self.weight, self.bias = (
            nn.Parameter(torch.stack([torch.stack([getattr(norm, kind).detach() for norm in pair]) for pair in pairs]))
            for kind in ("weight", "bias")
        )

    def blocks(self, tower: Transformer) -> list[Block]:
        """The blocks of the tower with the learned norms."""
        learned = zip(tower.blocks, self.weight.unbind(), self.bias.unbind(), strict=True)
        return [NormedBlock(block, weights, biases) for block, weights, biases in learned]
