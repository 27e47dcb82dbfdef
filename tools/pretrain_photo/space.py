"""The joint space, fixed before either tower is trained: where a picture belongs and where a text belongs.

A picture's code is made of the teacher's whitened features and of the square roots of its class probabilities; a
text's code is the mean code of the classes it has to do with (`affinity.py`). One dimension is the same for all
pictures and texts, so that cosines differ as little as in a full-size CLIP and a logit scale of 100 is calibrated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from affinity import Affinity
from sources import IMAGENET, food_names, wordnet_ids
from teacher import Teacher
from torch import Tensor
from torch.nn import functional as F

WIDTH = 256
WHITEN, CLASSES = 0.5, 1.0
"""Exponent of the whitening of features, and weight of the class probabilities beside them."""
TRUTH = 0.5
"""Weight of a known label against the teacher's opinion, who sees enlarged small pictures here."""


class Space:
    """The maps of the teacher's features, and the codes of all classes."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.spread = float(tensors["spread"])  # share of a unit vector's square that is not the common dimension

    @classmethod
    def load(cls, path: Path) -> Space:
        """Read a space."""
        return cls(torch.load(path, weights_only=True))

    def probabilities(self, features: Tensor) -> Tensor:
        """Return the teacher's opinion over ImageNet's 1,000 classes."""
        return (features @ self.tensors["head"].T + self.tensors["bias"]).softmax(1)

    def raw(self, features: Tensor) -> Tensor:
        """Return codes of pictures before the reduction to the joint width."""
        t = self.tensors
        seen = F.normalize((features - t["mean"]) @ t["whiten"], dim=-1)
        named = F.normalize(self.probabilities(features).sqrt() - t["root"], dim=-1)
        return torch.cat([seen, CLASSES * named], 1)

    def code(self, features: Tensor) -> Tensor:
        """Return unit codes of pictures (B, width - 1)."""
        return F.normalize(self.raw(features) @ self.tensors["basis"], dim=-1)

    def soft(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return probabilities over all classes: the teacher's, mixed with the label where there is one."""
        extra = len(self.tensors["classes"]) - IMAGENET if "classes" in self.tensors else int(self.tensors["extra"])
        p = F.pad(self.probabilities(features), (0, extra))
        known = labels >= 0
        p[known] = (1 - TRUTH) * p[known] + TRUTH * F.one_hot(labels[known], p.shape[1])
        return p

    def targets(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return unit vectors (B, width) that pictures should have; a known label pulls them to its class."""
        code = self.code(features)
        known = labels >= 0
        code[known] = F.normalize(code[known] + TRUTH * self.tensors["classes"][labels[known]], dim=-1)
        return self.lift(code)

    def texts(self, affinity: Tensor) -> Tensor:
        """Return unit vectors (n, width) of texts from their distributions over the classes."""
        return self.lift(F.normalize(affinity @ self.tensors["classes"], dim=-1))

    def lift(self, code: Tensor) -> Tensor:
        """Put the common dimension before unit codes."""
        common = code.new_full((len(code), 1), (1 - self.spread) ** 0.5)
        return torch.cat([common, code * self.spread**0.5], 1)


def build(features: Tensor, labels: Tensor, head: Tensor, bias: Tensor, extra: int) -> Space:
    """Fit whitening, basis and class codes on labelled pictures."""
    mean = features.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((features - mean).T))
    whiten = vectors[:, -WIDTH:] * values[-WIDTH:].clamp(min=1e-6) ** (-WHITEN / 2)
    tensors = {"head": head, "bias": bias, "mean": mean, "whiten": whiten, "extra": torch.tensor(extra)}
    space = Space(tensors | {"spread": torch.tensor(1.0)})
    space.tensors["root"] = space.probabilities(features).sqrt().mean(0)
    raw = space.raw(features)
    values, vectors = torch.linalg.eigh(raw.T @ raw)
    space.tensors["basis"] = vectors[:, -(WIDTH - 1) :]
    kept = float(values[-(WIDTH - 1) :].sum() / values.sum())
    code, soft = space.code(features), space.soft(features, labels)
    weight = soft.square()
    space.tensors["classes"] = F.normalize(weight.T @ code / weight.sum(0)[:, None].clamp(min=1e-6), dim=-1)
    print(f"{kept:.3f} of the codes' square is kept in {WIDTH - 1} dimensions")
    return space


def calibrate(space: Space, features: Tensor, labels: Tensor, texts: Tensor) -> float:
    """Return the scale at which class texts explain the soft labels best."""
    code, soft = space.code(features), space.soft(features, labels)
    scales = [float(s) for s in range(6, 60, 3)]
    losses = [-(soft * (s * code @ texts.T).log_softmax(1)).sum(1).mean() for s in scales]
    print("scale: loss", {s: round(float(v), 2) for s, v in zip(scales, losses, strict=True)})
    return scales[int(torch.stack(losses).argmin())]


def main() -> None:
    """Write `space.pt` from what is labelled so far."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--packed", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most", type=int, default=70_000, help="pictures that the maps are fitted on")
    options = parser.parse_args()
    count = min(options.most, int((options.packed / "labelled.txt").read_text()))
    table = json.loads((options.packed / "table.json").read_text())[:count]
    features = torch.from_numpy(np.load(options.packed / "features.npy", mmap_mode="r")[:count].astype(np.float32))
    labels = torch.tensor([row[2] for row in table])
    head, bias = Teacher(64).head()
    others = food_names(options.photos)
    space = build(features, labels, head, bias, len(others))
    affinity = Affinity(wordnet_ids(options.photos), others)
    own = torch.eye(affinity.classes)
    names = torch.cat([affinity.of_nouns(wordnet_ids(options.photos)), affinity.of_texts(others)])
    names = 0.6 * own + 0.4 * names  # a class's own name means itself first
    space.tensors["names"] = names
    texts = F.normalize(names @ space.tensors["classes"], dim=-1)
    space.tensors["spread"] = torch.tensor(calibrate(space, features[:20_000], labels[:20_000], texts) / 100)
    torch.save(space.tensors, options.out)
    print(f"spread {float(space.tensors['spread']):.2f}, {len(texts)} classes, {count} pictures, in {options.out}")


if __name__ == "__main__":
    main()
