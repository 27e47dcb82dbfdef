"""Embedding tables of which only the rows that are used are read.

SigLIP 2's table takes 786 MB in float32 and that of MetaCLIP 2's H/14 3.7 GB. They have 256,000 and 901,629 rows, of
which the class names of a task use a few hundred.
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
    """Stands for an `nn.Embedding`: reads the rows for ids from a safetensors file, once each, and keeps them.

    On another device than the CPU, each look-up waits for it, to see whether a row is lacking.
    """

    def __init__(self, path: Path, name: str, count: int, width: int) -> None:
        super().__init__()
        self.path, self.name = path, name
        # id -> its place among the rows, or -1; both are replaced together, never changed: threads may share them
        self._held = torch.full((count,), -1), torch.zeros(0, width)

    def forward(self, ids: Tensor) -> Tensor:
        """(..) -> (.., W) float32, on the device of the ids."""
        places, rows = self._held
        if places.device != ids.device:
            places, rows = self._held = places.to(ids.device), rows.to(ids.device)
        found = places[ids]
        if (found < 0).any():
            places, rows = self._held = self._with(ids[found < 0], places, rows)
            found = places[ids]
        return rows[found]

    @torch.inference_mode(False)  # training after prediction needs normal tensors
    @torch.no_grad()
    def _with(self, ids: Tensor, places: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Places and rows with those for more ids, which are lacking."""
        wanted = ids.unique()
        with (
            foreign(
                lambda why: BackboneError(f"{self.path} cannot be read any more ({why}); load the backbone again.")
            ),
            safe_open(self.path, "pt") as file,
        ):
            table = file.get_slice(self.name)
            more = torch.cat([table[first:last] for first, last in _spans(wanted.tolist())]).float()
        if not torch.isfinite(more.sum()):
            raise BackboneError(f"{self.path} has values that are not finite in {self.name}; fetch it again.")
        places = places.clone()
        places[wanted] = torch.arange(len(rows), len(rows) + len(more), device=places.device)
        return places, torch.cat([rows, more.to(rows.device)])


def find_rows(files: Iterable[Path]) -> EmbeddingRows | None:
    """The token table in the weight files of a checkpoint, if it is large; None for files of other containers."""
    for path in files:
        if path.suffix != ".safetensors":
            continue
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                if name.endswith(NAME):
                    rows, width = file.get_slice(name).get_shape()
                    return EmbeddingRows(path, name, rows, width) if 4 * rows * width >= LARGE else None
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
