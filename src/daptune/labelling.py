"""Which images to label next: those that a classifier is unsure of, spread over its features.

The margin of an image is the difference of its two largest probabilities. Of the images with the smallest margins,
`CANDIDATES` for each that is wanted, the features are grouped by k-means, weighted by 1 - margin; the candidate nearest
to each centre is suggested. So suggestions are uncertain, unlike each other, and typical of a group of images rather
than outliers. Images like those that are labelled have large margins, which keeps suggestions away from them.

After Zhdanov, Diverse mini-batch active learning (2019, arXiv 1901.05954), with more candidates. The rule was chosen on
three tasks and tried on two others (`studies/suggest.py`, docs/labels.md).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from daptune.classifier import FewShotClassifier
from daptune.clip.transfer import Transfer
from daptune.data.check import Unreadable
from daptune.data.stream import Item, decoded_batches
from daptune.data.table import ImageSource
from daptune.errors import DataError
from daptune.predict.inputs import image_sources

CANDIDATES = 50
"""Candidates for each suggestion."""
MOST_CANDIDATES = 10_000
"""Limit for all candidates, so that memory and time are limited."""
MOST_REASONS = 20
"""Unreadable images that are kept with their reasons."""
LEAST_WEIGHT = 1e-6
"""Of a candidate without any doubt: k-means needs a positive weight."""
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Suggestion:
    """An image to label.

    name, source, index   as in the input, and its place there, from 0
    label, probability    the most probable class and its probability
    margin                by how much the next class is less probable, 0 to 1
    """

    name: str
    source: ImageSource
    index: int
    label: Any
    probability: float
    margin: float


@dataclass
class Suggestions:
    """Images to label, least certain first; how many images were read, and how many could not be, with reasons."""

    images: list[Suggestion] = field(default_factory=list)
    read: int = 0
    unreadable: int = 0
    reasons: list[Unreadable] = field(default_factory=list)


class _Candidate(NamedTuple):
    suggestion: Suggestion
    features: Floats


def suggest(classifier: FewShotClassifier, images: Any, n: int = 20) -> Suggestions:
    """The n images that are most worth a label, or all if they are fewer.

    images   a list of paths, PIL images, uint8 arrays or bytes, or one folder, as for `predict_proba`

    Unreadable images are counted and left out. Raises DataError for n below 1 and if no image can be read.
    """
    found = suggest_of(classifier, image_sources(images), n)
    if not found.images:
        raise DataError("expected images to choose from, found none that can be read.")
    return found


def suggest_of(
    classifier: FewShotClassifier,
    images: Iterable[ImageSource | Item],
    n: int,
    after_batch: Callable[[int], object] = int,
) -> Suggestions:
    """`suggest` for a stream of any length, of which only candidates are in memory.

    `after_batch` is called with the number of images of each batch.
    """
    check_is_fitted(classifier, "record_")
    classifier.check_single_label("suggest")
    if n < 1:
        raise DataError(f"expected a number of images of at least 1, found {n}; give one such as -n 20.")
    most = max(n, min(CANDIDATES * n, MOST_CANDIDATES))
    found, kept = Suggestions(), list[_Candidate]()
    transfer, method, labels = Transfer(classifier.backbone_.device), classifier.method_, classifier.classes_.tolist()
    scaled = classifier.scaled_decoding
    for batch in decoded_batches(images, classifier.preprocess, classifier.batch_size, scaled=scaled):
        found.read += len(batch.indices)
        found.unreadable += len(batch.failed)
        found.reasons += batch.failed[: MOST_REASONS - len(found.reasons)]
        if batch.indices:
            with torch.inference_mode():
                scores, seen = method.answer_with_features(*transfer(torch.from_numpy(batch.images)))
                p = classifier.method_.probabilities(scores, classifier.record_.temperature).cpu().numpy()
                features = seen.float().cpu().numpy()
            best, gaps = p.argmax(axis=1).tolist(), margins(p).tolist()
            about = zip(batch.names, batch.sources, batch.indices, best, gaps, strict=True)
            for row, (name, source, index, place, gap) in enumerate(about):
                one = Suggestion(name, source, index, labels[place], float(p[row, place]), gap)
                kept.append(_Candidate(one, features[row].copy()))
            if len(kept) > 2 * most:
                kept = _least_sure(kept, most)
        after_batch(len(batch.indices) + len(batch.failed))
    kept = _least_sure(kept, most)
    if kept:
        z, margin = (np.stack(part) for part in zip(*((c.features, c.suggestion.margin) for c in kept), strict=True))
        found.images = [kept[row].suggestion for row in choose(z, margin, n)]
    return found


def margins(probabilities: Floats) -> Floats:
    """Difference of the two largest probabilities, (n, C) -> (n,); 0 for one class."""
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities))
    two = np.partition(probabilities.astype(np.float64), -2, axis=1)
    found: Floats = two[:, -1] - two[:, -2]
    return found


def choose(features: Floats, margin: Floats, n: int) -> list[int]:
    """Rows of n candidates, or all, smallest margin first: unit features (m, D), margins (m,).

    Candidates that look the same count once, unless there are not enough others.
    """
    from sklearn.cluster import KMeans

    order = np.argsort(margin, kind="stable")
    if len(features) <= n:
        return [int(row) for row in order]
    groups = min(n, len(np.unique(features, axis=0)))
    found = KMeans(groups, n_init=3, random_state=0).fit(features, sample_weight=np.maximum(1 - margin, LEAST_WEIGHT))
    distances = np.linalg.norm(features - found.cluster_centers_[found.labels_], axis=1)
    chosen = []
    for group in np.unique(found.labels_):
        own = np.flatnonzero(found.labels_ == group)
        chosen.append(own[distances[own].argmin()])
    chosen += order[~np.isin(order, chosen)][: n - len(chosen)].tolist()
    return [int(row) for row in order[np.isin(order, chosen)]]


def _least_sure(kept: list[_Candidate], most: int) -> list[_Candidate]:
    """The candidates with the smallest margins, at most `most`, in the order of the stream."""
    rows = np.argsort([one.suggestion.margin for one in kept], kind="stable")[:most]
    return [kept[row] for row in np.sort(rows).tolist()]
