"""Maps of features before and after learning (the paper's Figures 1 and 6): classes' texts, and images by class.

A map keeps neighbours, not distances: the silhouette beside it is measured in the features themselves.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from daptune import metrics
from daptune.data.loader import ImageLoader
from daptune.data.table import ImageTable
from daptune.errors import MethodError
from daptune.methods import Method
from daptune.methods.base import encode_batches
from daptune.report.svg import INK, RULE, SERIES, SOFT, Figure, finished, look, panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_IMAGES = 600
"""Of which a map is drawn: more are no clearer."""
MOST_CLASSES = 10
"""That a map tells apart by colour and marker; those with the most images."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """Unit features of n images, (n, D), their labels (n,), and of the C classes' texts, (C, D), where there are any.

    D of images and texts is the same; a method that answers without CLIP's text tower has none of the texts.
    """

    images: Floats
    labels: NDArray[np.int64]
    texts: Floats | None

    def of_classes(self, classes: Sequence[int]) -> "Features":
        """Images of some classes."""
        kept = np.isin(self.labels, classes)
        return Features(self.images[kept], self.labels[kept], self.texts)

    def silhouette(self) -> float:
        """Mean silhouette of the images by class, -1 to 1; NaN of one class."""
        return metrics.silhouette(self.images, self.labels)


def encode(method: Method, table: ImageTable, *, batch_size: int = 64) -> Features:
    """Features as the method sees them, after its prompts."""
    loader = ImageLoader(table, method.backbone.preprocess, batch_size, drop_last=False)
    with torch.no_grad():
        images, _ = encode_batches(method.image_features, loader.evaluation(), method.clip.device)
        try:
            texts = method.text_features()
        except MethodError:
            texts = None
    if texts is not None and texts.shape != (len(method.class_names), images.shape[1]):
        texts = None
    return Features(_numbers(images), table.labels, None if texts is None else _numbers(texts))


def _numbers(tensor: torch.Tensor) -> Floats:
    found: Floats = tensor.double().cpu().numpy()
    return found


def project(points: Floats) -> Floats:
    """(n, D) -> (n, 2): t-SNE (van der Maaten & Hinton 2008), or two principal components of fewer than 10 points."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(points) < 10:
        flat = PCA(n_components=min(2, *points.shape), svd_solver="full").fit_transform(points - points.mean(0))
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of equal points and thread counts, which change nothing here
        found: Floats = TSNE(perplexity=min(30.0, (len(points) - 1) / 3), random_state=0).fit_transform(points)
    return found


def few(table: ImageTable) -> ImageTable:
    """At most MOST_IMAGES, spread evenly over the table."""
    if len(table) <= MOST_IMAGES:
        return table
    return table.subset(np.linspace(0, len(table) - 1, MOST_IMAGES).round().astype(np.int64))


def shown_classes(labels: NDArray[np.int64]) -> list[int]:
    """The classes with the most images, in the order of the class list."""
    counts = np.bincount(labels)
    order = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
    return sorted(int(place) for place in order if counts[place])


def text_figures(name: str, names: Sequence[str], maps: Sequence[tuple[str, Features]]) -> list[Figure]:
    """A map of the classes' texts for each of (title, features)."""
    figures = []
    for place, (title, features) in enumerate(maps):
        if features.texts is None or len(features.texts) < 3:
            continue
        x, y = project(features.texts).T
        with panel(height=4.2) as (drawing, axes):
            axes.plot(x, y, "o", color=SERIES[0], markersize=6)
            for label, left, low in zip(names, x, y, strict=True):
                axes.annotate(
                    _short(label), (left, low), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=6.5,
                    color=SOFT,
                )  # fmt: skip
            _bare(axes, title)
            figures.append(finished(drawing, f"{name}-texts-{place}", f"{title}: map of {len(x)} classes' texts"))
    return figures


def image_figures(name: str, names: Sequence[str], maps: Sequence[tuple[str, Features]]) -> list[Figure]:
    """A map of images by class for each of (title, features); the texts too, where `texts` is in the features.

    Image and text features of CLIP lie in cones of their own; both are centred before they share a map.
    """
    figures = []
    for place, (title, features) in enumerate(maps):
        classes = shown_classes(features.labels)
        some = features.of_classes(classes)
        if len(some.images) < 3:
            continue
        points = _centred(some.images)
        if some.texts is not None:
            points = np.concatenate([points, _centred(some.texts)[classes]])
        flat = project(points)
        with panel(height=4.9) as (drawing, axes):
            for order, label in enumerate(classes):
                colour, marker = look(order)
                own = flat[: len(some.images)][some.labels == label]
                axes.plot(*own.T, marker, color=colour, markersize=5, alpha=0.75, label=_short(names[label]))
                if some.texts is not None:
                    spot = flat[len(some.images) + order]
                    axes.plot(*spot, "*", color=colour, markersize=13, markeredgecolor=INK, markeredgewidth=0.8)
            _bare(axes, title)
            drawing.legend(loc="outside lower center", ncols=3, fontsize=8, handletextpad=0.1, columnspacing=0.8)
            words = f"{title}: map of {len(some.images)} images of {len(classes)} classes"
            figures.append(finished(drawing, f"{name}-images-{place}", words))
    return figures


def _centred(points: Floats) -> Floats:
    moved = points - points.mean(axis=0)
    found: Floats = moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
    return found


def _short(text: str) -> str:
    return text if len(text) <= 18 else text[:17] + "…"


def _bare(axes: "Axes", title: str) -> None:
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.margins(0.1)
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_color(RULE)
