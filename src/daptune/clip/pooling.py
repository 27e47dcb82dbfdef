"""Several names for a class: their text features become one.

The feature of a class is the normalised mean of the unit features of its names, as OpenAI averages templates
(Radford et al. 2021, arXiv 2103.00020, section 3.1.4).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

Names = Sequence[str | Sequence[str]]
"""For each class its name in prompts, or several."""


@dataclass(frozen=True)
class NamePool:
    """Which of K names belong to each of C classes, at most n to one."""

    owners: Tensor
    """(K,) the class of each name."""
    places: Tensor
    """(C, n) the names of each class; short rows repeat their first."""
    weights: Tensor
    """(C, n, 1) share of each in the mean; 0 for the repeated."""
    _elsewhere: dict[torch.device, "NamePool"] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, features: Tensor) -> Tensor:
        """(..., K, D) -> (..., C, D): the direction of the mean unit feature, with the mean length of the features."""
        # a padded gather: unlike a sum by index, it gives the same bits on a GPU in every run
        own = features.index_select(-2, self.places.flatten()).unflatten(-2, self.places.shape)  # (..., C, n, D)
        length = (own.norm(dim=-1, keepdim=True) * self.weights).sum(-2)
        return F.normalize((F.normalize(own, dim=-1) * self.weights).sum(-2), dim=-1) * length

    def to(self, device: torch.device) -> "NamePool":
        """A copy on a device, made once: a copy in every step would block the CPU."""
        if device == self.owners.device:
            return self
        if device not in self._elsewhere:
            with torch.inference_mode(False):  # training after prediction needs normal tensors
                owners, places, weights = (part.to(device) for part in (self.owners, self.places, self.weights))
                self._elsewhere[device] = NamePool(owners, places, weights)
        return self._elsewhere[device]


def pool_names(names: Names) -> tuple[list[str], NamePool | None]:
    """All names, class by class, and how to make one feature of those of a class; None where each has one name."""
    rows = [[own] if isinstance(own, str) else list(own) for own in names]
    flat = [name for own in rows for name in own]
    if len(flat) == len(rows):
        return flat, None
    most, first = max(map(len, rows)), 0
    places = torch.zeros(len(rows), most, dtype=torch.int64)
    weights = torch.zeros(len(rows), most, 1)
    for c, own in enumerate(rows):
        places[c] = first
        places[c, : len(own)] += torch.arange(len(own))
        weights[c, : len(own)] = 1 / len(own)
        first += len(own)
    owners = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(list(map(len, rows))))
    return flat, NamePool(owners, places, weights)
