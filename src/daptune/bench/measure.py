"""Measurements besides test accuracy: other data sets, and the dispersion of features."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from daptune import metrics
from daptune.bench.datasets import is_path
from daptune.data.loader import ImageLoader
from daptune.data.table import ImageTable
from daptune.errors import MethodError
from daptune.evaluate import BATCH, measure
from daptune.methods import Method
from daptune.methods.support import class_sums, encode_batches, view_features

MOST_SPREAD = 2000  # maximum number of images for the dispersion


def right_on_target(method: Method, table: ImageTable, target: str, *, among_all: bool = False) -> NDArray[np.bool_]:
    """(n,) whether each image of a data set with other classes is classified correctly.

    If all its classes are learned ones (ImageNet-A), predictions are limited to these (to any learned class with
    `among_all`); otherwise the method gets the new names. Raises MethodError if it does not accept new classes.
    """
    places = {name: place for place, name in enumerate(method.class_names)}
    if all(name in places for name in table.class_names):
        columns = np.array([places[name] for name in table.class_names])
        if among_all:
            return measure(method, replace(table, labels=columns[table.labels], class_names=method.class_names)).correct
        return measure(method, table).among(columns.tolist()).correct
    other = method.with_classes(table.class_names)
    if getattr(method.config, "dataset", "") and not is_path(target):  # the template belongs to the old data set
        config = replace(method.config, dataset=target)  # type: ignore[call-arg]
        other = type(method)(method.backbone, table.class_names, config, seed=method.seed)
        other.load_state_dict(method.state_dict())
    return measure(other.eval(), table).correct


def evenly(table: ImageTable, most: int) -> ImageTable:
    """At most `most` images, evenly spaced in the table."""
    return table.subset(np.unique(np.linspace(0, len(table) - 1, min(len(table), most)).round().astype(np.int64)))


def dispersion(method: Method, train: ImageTable, test: ImageTable) -> dict[str, float | None] | None:
    """Dispersion of text and image features; None for a method without one text feature per class.

    text_distance and uniformity describe the text features, prototype_distance and silhouette the features of test
    images. The prototype of a class is the mean unit zero-shot feature of its training images.
    """
    method.eval()
    preprocess, device = method.backbone.preprocess, method.backbone.device
    with torch.no_grad():
        try:
            text = method.class_text_features()
        except MethodError:
            return None
        if text.dim() != 2 or len(text) != len(method.class_names):
            return None
        known, known_labels = view_features(method.clip, ImageLoader(train, preprocess, BATCH), 0, unit=True)
        counts = known_labels.bincount(minlength=len(text)).clamp(min=1)
        prototypes = class_sums(known, known_labels, len(text)) / counts.unsqueeze(1)
        loader = ImageLoader(evenly(test, MOST_SPREAD), preprocess, BATCH)
        features, labels = encode_batches(method.image_features, loader.evaluation(), device)
    if features.dim() != 2 or features.shape[1] != prototypes.shape[1]:
        return None
    w, z, s = (tensor.float().cpu().numpy() for tensor in (text, features, prototypes))
    y = labels.cpu().numpy()
    found = {
        "text_distance": metrics.text_distance(w),
        "uniformity": metrics.uniformity(w),
        "prototype_distance": metrics.prototype_distance(z, y, s),
        "silhouette": metrics.silhouette(z, y),
    }
    return {name: value if np.isfinite(value) else None for name, value in found.items()}
