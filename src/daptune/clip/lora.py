"""LoRA: learned low-rank matrices added to the frozen projections of attention.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv 2106.09685, section 4.1; scaled by
alpha / sqrt(r), Kalajdzievski, arXiv 2312.03732. Official on CLIP: MaxZanella/CLIP-LoRA loralib/layers.py.

The frozen tower is not modified: it runs through blocks given to it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Block, Transformer

MATRICES = ("q", "k", "v", "o")  # query, key, value, output


class LoRABlock(Block):
    """A frozen block, not copied, whose projections W x + b become W x + b + scale B A dropout(x).

    a (n, r, W) and b (n, W, r) hold A and B of the n `matrices`; they are cast to the type of the tower's products.
    Each matrix has its own dropout mask.
    """

    def __init__(
        self, frozen: Block, matrices: Sequence[str], a: Tensor, b: Tensor, *, scale: float, dropout: float = 0.0
    ) -> None:
        nn.Module.__init__(self)
        self.attn, self.ln_1, self.mlp, self.ln_2 = frozen.attn, frozen.ln_1, frozen.mlp, frozen.ln_2
        self.pairs = dict(zip(matrices, zip(a.unbind(), b.unbind(), strict=True), strict=True))
        self.scale = scale
        self.dropout = dropout

    def project(self, x: Tensor, first: int = 0, last: int = 3) -> tuple[Tensor, ...]:
        x = self.ln_1(x, self.dtype)
        frozen = self.attn.split(self.attn.project(x, first, last))
        return tuple(
            part + self.attn.split(self._delta(matrix, x))[0] if matrix in self.pairs else part
            for matrix, part in zip(MATRICES[first:last], frozen, strict=True)
        )

    def output(self, attended: Tensor) -> Tensor:
        projected = super().output(attended)
        return projected + self._delta("o", attended) if "o" in self.pairs else projected

    def _delta(self, matrix: str, x: Tensor) -> Tensor:
        a, b = self.pairs[matrix]
        low = F.linear(F.dropout(x, self.dropout) if self.dropout else x, a.to(x.dtype))  # (.., L, r)
        return F.linear(low * self.scale, b.to(x.dtype))


class LowRank(nn.Module):
    """Learned A (J, n, r, W) and B (J, n, W, r) of n matrices in J layers of a tower.

    A is initialised uniform(-v, v), v = W^-1/2 (torch's kaiming_uniform with a = sqrt(5)), from `generator`; B with 0.
    """

    def __init__(
        self,
        tower: Transformer,
        layers: Sequence[int],
        matrices: Sequence[str],
        *,
        rank: int,
        alpha: float,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        weight = tower.blocks[0].ln_1.weight
        width, bound = len(weight), len(weight) ** -0.5
        a = torch.empty(len(layers), len(matrices), rank, width).uniform_(-bound, bound, generator=generator)
        self.a = nn.Parameter(a.to(weight.device))
        self.b = nn.Parameter(torch.zeros(len(layers), len(matrices), width, rank, device=weight.device))
        self.layers, self.matrices = layers, matrices
        self.scale, self.dropout = alpha * rank**-0.5, dropout

    def blocks(self, tower: Transformer) -> list[Block]:
        """The blocks of the tower with the learned matrices added; dropout only in training mode."""
        blocks, dropout = tower.blocks, self.dropout if self.training else 0.0
        for layer, a, b in zip(self.layers, self.a.unbind(), self.b.unbind(), strict=True):
            blocks[layer] = LoRABlock(blocks[layer], self.matrices, a, b, scale=self.scale, dropout=dropout)
        return blocks
