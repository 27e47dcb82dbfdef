"""Rotary position embedding in two dimensions: queries and keys of patches are turned by their places.

Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", arXiv 2104.09864, section 3.2.2; along both
axes of an image in EVA-02 (Fang et al., arXiv 2303.11331) and Perception Encoder (Bolya et al., arXiv 2504.13181).
Shape letters: `daptune.clip.model`.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import BackboneError

BASE = 10_000.0


class Rotary(nn.Module):
    """Turns patches by their places (G, 2), which stand behind `first` other tokens.

    Of the W/H numbers of a head, the pair (2k, 2k + 1) is turned by place[0] BASE^(-4k / (W/H)) in the first half, and
    likewise by place[1] in the second. Tokens without a place, the class token and visual tokens, are not turned.
    """

    sin: Tensor
    cos: Tensor

    def __init__(self, places: NDArray[np.float64], width: int, first: int) -> None:
        """`width` is W/H. Raises BackboneError unless it is a multiple of 4."""
        super().__init__()
        if width % 4:
            raise BackboneError(f"rotary positions along two axes need heads of a multiple of 4, found {width} wide.")
        self.first = first
        speeds = BASE ** (-np.arange(width // 4) / (width // 4))
        angles = (places[:, :, None] * speeds).reshape(len(places), -1).repeat(2, axis=1)  # (G, W/H)
        # from numpy: a tower is built on the meta device, where torch would compute nothing
        for name, values in (("sin", np.sin(angles)), ("cos", np.cos(angles))):
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Queries or keys (.., H, L, W/H), the patches behind the `first` tokens; computed in float32."""
        end = self.first + len(self.sin)
        before, own, behind = x[..., : self.first, :], x[..., self.first : end, :].float(), x[..., end:, :]
        across = torch.stack([-own[..., 1::2], own[..., ::2]], -1).flatten(-2)
        return torch.cat([before, (own * self.cos + across * self.sin).to(x.dtype), behind], -2)


def square(side: int, *, start: int = 0, reference: int | None = None) -> NDArray[np.float64]:
    """Places (row, column) of side x side patches from the upper left, counted from `start`: (side^2, 2).

    `reference`: the side of the grid that the places are scaled to.
    """
    along = np.arange(start, start + side) * ((reference or side) / side)
    return np.stack(np.meshgrid(along, along, indexing="ij"), -1).reshape(-1, 2)
