"""Maps of features before and after training (the paper's Figures 1 and 6): class texts, and images by class.

A map preserves neighbours, not distances; the silhouette is measured on the features themselves.
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
from daptune.methods.support import encode_batches
from daptune.report.svg import INK, RULE, SERIES, SMALLEST, SOFT, UNITS, Figure, finished, look, panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_IMAGES = 600  # images of a map, evenly spaced in the table; more would not be clearer
MOST_CLASSES = 10  # classes of a map, those with the most images; more colours and markers cannot be told apart
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """Unit features of n images (n, D), their labels (n,), and unit features of C class texts (C, D).

    texts: None for a method without CLIP's text tower.
    """

    images: Floats
    labels: NDArray[np.int64]
    texts: Floats | None

    def silhouette(self) -> float:
        """Mean silhouette of the images by class, -1 to 1; NaN for one class."""
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
    x, *t = (tensor.double().cpu().numpy() for tensor in (images, texts) if tensor is not None)
    return Features(x, table.labels, t[0] if t else None)


def project(points: Floats) -> Floats:
    """(n, D) -> (n, 2): t-SNE (van der Maaten & Hinton 2008); two principal components for fewer than 10 points."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(points) < 10:
        flat = PCA(n_components=min(2, *points.shape), svd_solver="full").fit_transform(points - points.mean(0))
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about equal points and thread counts, which are harmless here
        found: Floats = TSNE(perplexity=min(30.0, (len(points) - 1) / 3), random_state=0).fit_transform(points)
    return found


def map_figures(name: str, names: Sequence[str], maps: Sequence[tuple[str, Features]]) -> list[Figure]:
    """For each (title, features) a map of the class texts, if any, then for each a map of the images by class.

    A class text whose label would cover another has none.
    """
    titled = list(enumerate(maps))
    found = [_of_texts(f"{name}-texts-{place}", names, *one) for place, one in titled]
    found += [_of_images(f"{name}-images-{place}", names, *one) for place, one in titled]
    return [figure for figure in found if figure is not None]


def _of_texts(name: str, names: Sequence[str], title: str, features: Features) -> Figure | None:
    if features.texts is None or len(features.texts) < 3:
        return None
    x, y = project(features.texts).T
    with panel(height=4.2) as (drawing, axes):
        axes.plot(x, y, "o", color=SERIES[0], markersize=6)
        _bare(axes, f"Class texts, {title}")
        drawing.draw_without_rendering()  # places the axes, which the room of a label depends on
        for place in _apart(axes.transData.transform(np.stack([x, y], 1)) * UNITS / drawing.dpi, names):
            axes.annotate(
                _short(names[place]), (x[place], y[place]), xytext=(0, 5), textcoords="offset points", ha="center",
                fontsize=SMALLEST, color=SOFT,
            )  # fmt: skip
        return finished(drawing, name, f"{title}: map of {len(x)} class texts")


def _of_images(name: str, names: Sequence[str], title: str, features: Features) -> Figure | None:
    """CLIP's image and text features lie in separate cones, so both are centred before they share a map."""
    counts = np.bincount(features.labels)
    most = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
    classes = sorted(int(place) for place in most if counts[place])
    kept = np.isin(features.labels, classes)
    labels, count = features.labels[kept], int(kept.sum())
    if count < 3:
        return None
    texts = [] if features.texts is None else [_centred(features.texts)[classes]]
    flat = project(np.concatenate([_centred(features.images[kept]), *texts]))
    with panel(height=4.9) as (drawing, axes):
        for order, label in enumerate(classes):
            colour, marker = look(order)
            own = flat[:count][labels == label]
            axes.plot(*own.T, marker, color=colour, markersize=5, alpha=0.75, label=_short(names[label]))
            for spot in flat[count:][order : order + 1]:  # the class text, if any
                axes.plot(*spot, "*", color=colour, markersize=13, markeredgecolor=INK, markeredgewidth=0.8)
        _bare(axes, f"Images by class, {title}")
        drawing.legend(loc="outside lower center", ncols=2, handletextpad=0.1, columnspacing=0.8)
        return finished(drawing, name, f"{title}: map of {count} images of {len(classes)} classes")


def _apart(points: Floats, names: Sequence[str]) -> list[int]:
    """The rows of points (n, 2), in units of the figure, whose labels do not cover the label of an earlier one."""
    kept: list[int] = []
    widths = [0.6 * SMALLEST * len(_short(name)) for name in names]
    for row, (x, y) in enumerate(points):
        if all(
            abs(x - points[other, 0]) > (widths[row] + widths[other]) / 2 or abs(y - points[other, 1]) > 1.3 * SMALLEST
            for other in kept
        ):
            kept.append(row)
    return kept


def _centred(points: Floats) -> Floats:
    moved = points - points.mean(axis=0)
    found: Floats = moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
    return found


def _short(text: str) -> str:
    return text if len(text) <= 18 else text[:17] + "…"


def _bare(axes: "Axes", title: str) -> None:
    axes.set(title=title, xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.margins(0.1)
    axes.spines[:].set(visible=True, color=RULE)
