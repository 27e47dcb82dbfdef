"""Embedding tables of which only the rows that are used are read.

SigLIP 2's table takes 786 MB in float32, and the class names of a task use a few hundred of its 256,000 rows.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..errors import BackboneError, foreign

LARGE = 2**28
"""Bytes in float32 from which a table stays in its file; that of CLIP's bigG/14 has 253 MB."""
NAME = "token_embedding.weight"


class EmbeddingRows(nn.Module):
    """Stands for an `nn.Embedding`: reads the rows for ids from a safetensors file, each time they are asked for."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__()
        self.path, self.name = path, name

    def forward(self, ids: Tensor) -> Tensor:
        """(..) -> (.., W) float32, on the device of the ids."""
        wanted, places = ids.unique(return_inverse=True)
        spans = _spans(wanted.tolist())
        with (
            foreign(
                lambda why: BackboneError(f"{self.path} cannot be read any more ({why}); load the backbone again.")
            ),
            safe_open(self.path, "pt") as file,
        ):
            table = file.get_slice(self.name)
            rows = torch.cat([table[first:last] for first, last in spans] or [table[:0]]).float()
        if not torch.isfinite(rows.sum()):
            raise BackboneError(f"{self.path} has values that are not finite in {self.name}; fetch it again.")
        return rows.to(ids.device)[places]


def find_rows(files: Iterable[Path]) -> EmbeddingRows | None:
    """The token table in the weight files of a checkpoint, if it is large; None for files of other containers."""
    for path in files:
        if path.suffix != ".safetensors":
            continue
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                if name.endswith(NAME):
                    rows, width = file.get_slice(name).get_shape()
                    return EmbeddingRows(path, name) if 4 * rows * width >= LARGE else None
    return None


def _spans(ids: list[int]) -> list[tuple[int, int]]:
    """Ascending ids as ranges of neighbours."""
    spans: list[tuple[int, int]] = []
    for row in ids:
        if spans and spans[-1][1] == row:
            spans[-1] = spans[-1][0], row + 1
        else:
            spans.append((row, row + 1))
    return spans
