"""How much a text has to do with each class: WordNet's tree where the text is a noun, sentence vectors always."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from sentences import Sentences
from torch import Tensor
from torch.nn import functional as F
from wordnet import nouns, senses

VISIBLE = {3, 5, 6, 8, 11, 13, 15, 17, 18, 19, 20, 27}
"""WordNet's fields of things that can be photographed: animals, artefacts, food, places, plants, .."""
TREE, NEAR, LOOSE, SHARE = 0.5, 0.2, 0.12, 0.6
"""Weight of the tree, temperatures of the similarity beside it and alone, share of the latter."""


@cache
def above(wordnet_id: str) -> frozenset[str]:
    """Return a noun and everything above it, along all parents."""
    found = {wordnet_id}
    for parent in nouns()[wordnet_id].above:
        found |= above(parent)
    return frozenset(found)


def meanings(name: str) -> list[str]:
    """Return up to three visible meanings of a name, singular or plural, commonest first."""
    name = name.lower()
    forms = [
        name,
        *(name.removesuffix(end) + new for end, new in (("ies", "y"), ("es", ""), ("s", "")) if name.endswith(end)),
    ]
    for form in forms:
        found = [s for s in senses().get(form, []) if nouns()[s].field in VISIBLE]
        if found:
            return found[:3]
    return []


class Affinity:
    """Distributions over the classes for names and free texts; the classes are ImageNet's, then others by name."""

    def __init__(self, wordnet_ids: Sequence[str], others: Sequence[str]) -> None:
        self.sentences = Sentences()
        self.classes = len(wordnet_ids) + len(others)
        table = nouns()
        self.centre = self.sentences([noun.names[0] for noun in list(table.values())[::20]]).mean(0)
        self.vectors = torch.cat([self.described(wordnet_ids), self.plain(others)])
        self.leaves: dict[str, list[int]] = {}
        for index, wordnet_id in enumerate(wordnet_ids):
            for parent in above(wordnet_id):
                self.leaves.setdefault(parent, []).append(index)

    def plain(self, texts: Sequence[str]) -> Tensor:
        """Return centred unit sentence vectors."""
        return F.normalize(self.sentences(texts) - self.centre, dim=-1)

    def described(self, wordnet_ids: Sequence[str]) -> Tensor:
        """Return vectors of nouns from all their names and half as much from the gloss, centred."""
        rows = [(i, name) for i, key in enumerate(wordnet_ids) for name in nouns()[key].names]
        owner = torch.tensor([i for i, _ in rows])
        vectors = self.sentences([name for _, name in rows])
        names = torch.zeros(len(wordnet_ids), vectors.shape[1]).index_add_(0, owner, vectors)
        glosses = self.sentences([nouns()[key].gloss for key in wordnet_ids])
        return F.normalize(F.normalize(F.normalize(names, dim=-1) + 0.5 * glosses, dim=-1) - self.centre, dim=-1)

    def tree(self, wordnet_id: str) -> Tensor:
        """Return for each class the logarithm of how many classes the nearest common hypernym holds."""
        size = torch.full((self.classes,), float(self.classes))
        for parent in sorted((p for p in above(wordnet_id) if p in self.leaves), key=lambda p: -len(self.leaves[p])):
            size[self.leaves[parent]] = float(len(self.leaves[parent]))
        return size.log()

    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """Return distributions from sentence vectors alone (n, classes)."""
        return (self.plain(texts) @ self.vectors.T / LOOSE).softmax(1)

    def of_nouns(self, wordnet_ids: Sequence[str]) -> Tensor:
        """Return distributions of WordNet's nouns from the tree and their descriptions."""
        near = self.described(wordnet_ids) @ self.vectors.T / NEAR
        tree = torch.stack([self.tree(key) for key in wordnet_ids])
        return (near - TREE * tree).softmax(1)

    def of_names(self, names: Sequence[str]) -> Tensor:
        """Return distributions of names: their visible meanings, commoner ones weigh more, and the sentence vector."""
        loose = self.of_texts(names)
        found = [meanings(name) for name in names]
        keys = sorted({key for row in found for key in row})
        if not keys:
            return loose
        known = dict(zip(keys, self.of_nouns(keys), strict=True))
        out = loose.clone()
        for i, row in enumerate(found):
            if row:
                weight = torch.tensor([(rank + 1) ** -1.5 for rank in range(len(row))])
                mean = (torch.stack([known[key] for key in row]) * (weight / weight.sum())[:, None]).sum(0)
                out[i] = SHARE * loose[i] + (1 - SHARE) * mean
        return out
