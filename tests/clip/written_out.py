"""The parts of image towers written out: numbers in float64, head by head and patch by patch."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def image_state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the image tower in float64, by their names in it."""
    return {name.removeprefix("visual."): t.double() for name, t in tensors.items() if name.startswith("visual.")}


def patches_of(image: Tensor, state: dict[str, Tensor], side: int) -> Tensor:
    """The convolution of 16 x 16 pixels at each patch, without a bias: (side^2, W)."""
    weight = state["conv1.weight"]
    places = [(16 * row, 16 * column) for row in range(side) for column in range(side)]
    return torch.stack([(weight * image[:, r : r + 16, c : c + 16]).sum((1, 2, 3)) for r, c in places])


def turned(part: Tensor, first: float, second: float) -> Tensor:
    """A query or key of one head, (W/H,), at two places, by multiplication of complex numbers."""
    d = len(part)
    numbers = torch.view_as_complex(part.reshape(-1, 2).contiguous())
    angles = [place * 10_000 ** (-k / (d // 4)) for place in (first, second) for k in range(d // 4)]
    turn = torch.tensor([complex(np.cos(angle), np.sin(angle)) for angle in angles], dtype=numbers.dtype)
    return torch.view_as_real(numbers * turn).flatten()


def norm(x: Tensor, state: dict[str, Tensor], name: str, eps: float = 1e-5) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def layer(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def mix(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention of queries (n, W) to keys (L, W), head by head."""
    width, found = query.shape[-1] // heads, []
    for head in range(heads):
        at = slice(head * width, (head + 1) * width)
        found.append((query[:, at] @ key[:, at].T / width**0.5).softmax(-1) @ value[:, at])
    return torch.cat(found, -1)
