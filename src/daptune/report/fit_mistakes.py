"""The section of the mistakes that a method was surest of, with what it looked at."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from daptune.data.images import decode
from daptune.data.table import ImageTable
from daptune.errors import DataError
from daptune.measured import Measured
from daptune.methods import Method
from daptune.report.fit_labels import file_of
from daptune.report.html import Html
from daptune.report.page import Section
from daptune.report.thumbnails import embedded, gallery
from daptune.report.where import patch_relevance, picture_with_map

MOST_PICTURES = 12
LOOKS = (
    "Beside each is where it looks: orange marks the patches that speak for the predicted class, none of it on the "
    "least relevant patch of a picture. Each patch is classified like an image, by its feature from the last block; "
    "its relevance is the score of the predicted class less the mean score of all classes. This is a hint: what a "
    "patch took over from others before the last block counts as its own."
)


def mistakes_section(method: Method, table: ImageTable, measured: Measured) -> Section:
    """The wrong predictions with the highest probability, on a table that was measured."""
    names, title = method.class_names, "Most confident mistakes"
    p, said, labels = measured.probabilities, measured.predicted, measured.labels
    wrong = np.flatnonzero(said != labels)
    order = wrong[np.argsort(-p[wrong, said[wrong]], kind="stable")][:MOST_PICTURES]
    if not len(order):
        return Section("mistakes", title, "All predictions on these images are correct.")
    items = []
    for row in order.tolist():
        likely, true = int(said[row]), int(labels[row])
        lines = [f"predicted with {100 * p[row, likely]:.0f} %", f"labelled {names[true]} ({100 * p[row, true]:.0f} %)"]
        items.append((table.images[row], names[likely], [*lines, file_of(table, row)]))
    text = f"The {len(items)} of {len(wrong)} wrong predictions with the highest confidence."
    beside = list(_where(method, table.subset(order), said[order]))
    if beside:
        text += f" {LOOKS}"
    return Section("mistakes", title, text, more=[gallery(items, beside)])


def _where(method: Method, table: ImageTable, classes: NDArray[np.int64]) -> Iterator[Html]:
    """A picture with its map for each row, empty for one that cannot be read; none if the method has no maps."""
    for source, label in zip(table.images, classes.tolist(), strict=True):
        try:
            image = decode(source)
        except DataError:
            yield Html()
            continue
        relevance = patch_relevance(method, method.backbone.preprocess(image), label)
        if relevance is None:
            return
        seen = picture_with_map(image, method.backbone.preprocess, relevance)
        yield embedded(seen, f"where it looks for {method.class_names[label]}")
