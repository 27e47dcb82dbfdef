"""Pictures of a lesson that look like another of its classes.

Before anything is trained, on features of the frozen CLIP. Two ways to contradict:

- A picture whose other class is more probable than `SURE`, judged by the class names and by the other pictures
  (`daptune.methods.mislabelled`). This finds single pictures in a wrong class.
- Two classes whose pictures were exchanged agree among themselves, so that only the class names can contradict: by
  these alone, the mean probability of the other class is above `EXCHANGED` over both, and above 1/2 in each.

The constants were chosen on draws of 2 to 5 classes of six tasks (`studies/teach.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daptune.clip.backbone import Backbone
from daptune.data.cache import Decoder
from daptune.data.loader import ImageLoader
from daptune.data.table import ImageTable
from daptune.evaluate import BATCH, seen_by, zero_shot
from daptune.methods.ensemble import Seen
from daptune.methods.mislabelled import judge_labels
from daptune.names import unreadable

SURE = 0.85
EXCHANGED = 0.75
FEWEST = 2  # pictures of a class that can be exchanged; of one, a strange name says as much


@dataclass(frozen=True, eq=False)
class Contradiction:
    """Rows of a table, ascending, whose label is `given` and that look like the class `like`."""

    given: int
    like: int
    rows: NDArray[np.int64]

    def to_json(self, names: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
        """With the names of the classes and the ids of the images."""
        images = [ids[row] for row in self.rows.tolist()]
        return {"class": names[self.given], "like": names[self.like], "images": images}


def contradictions(backbone: Backbone, table: ImageTable, decoder: Decoder) -> list[Contradiction]:
    """What contradicts in a table, by class and the class that it looks like."""
    names = table.class_names
    baseline = zero_shot(backbone, names)
    loader = ImageLoader(table, backbone.preprocess, BATCH, drop_last=False, decoder=decoder)
    seen = seen_by(baseline, loader.evaluation())
    strange = set(unreadable(names, backbone.tokenizer.spelling))
    readable = np.array([name not in strange for name in names])
    return contradicting(seen, baseline.text_features().double().cpu().numpy(), readable)


def contradicting(seen: Seen, w0: NDArray[np.float64], readable: NDArray[np.bool_]) -> list[Contradiction]:
    """`contradictions` of images as zero-shot CLIP sees them, and text features w0 (C, D).

    Names that are not `readable`, (C,), say nothing of exchanged classes.
    """
    check = judge_labels(seen.z, seen.labels, w0)
    like = np.where(check.likely_own > SURE, check.likely, seen.labels)
    for one, other, rows in _exchanged(seen, readable):
        like[rows] = np.where(seen.labels[rows] == one, other, one)
    found = []
    for given in range(len(w0)):
        for other in range(len(w0)):
            rows = np.flatnonzero((seen.labels == given) & (like == other))
            if other != given and len(rows):
                found.append(Contradiction(given, other, rows))
    return found


def _exchanged(seen: Seen, readable: NDArray[np.bool_]) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Pairs of classes whose pictures are exchanged, and the rows that say so."""
    from scipy.special import softmax  # a dependency of scikit-learn

    p, labels = softmax(seen.logits, axis=1), seen.labels
    said, counts = p.argmax(axis=1), np.bincount(labels, minlength=len(readable))
    able = [int(c) for c in np.flatnonzero(readable & (counts >= FEWEST))]
    means = {c: p[labels == c].mean(axis=0) for c in able}
    for one, other in combinations(able, 2):
        both = (means[one][other], means[other][one])
        if min(both) > 0.5 and sum(both) / 2 > EXCHANGED:
            yield one, other, np.flatnonzero(np.where(labels == one, said == other, (labels == other) & (said == one)))
