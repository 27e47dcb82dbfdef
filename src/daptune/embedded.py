"""Which of the backbones in this package suits a user's images: `backbone="auto"`."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from daptune.clip.backbone import Backbone
from daptune.clip.hub import EMBEDDED
from daptune.data.cache import Decoder
from daptune.data.table import ImageTable
from daptune.evaluate import judge_by_images, measure, zero_shot
from daptune.names import ClassNames

DEFAULT = "photo"
"""Chosen where no embedded backbone is better than a guess."""
LOOKED_AT = 256
"""Images are enough to tell photographs from icons."""


def _guess(images: ImageTable) -> float:
    """The loss of probabilities that say nothing: equal ones, or the shares of the classes where each is by itself."""
    if not images.multi_label:
        return math.log(len(images.class_names))
    p = np.clip(images.counts() / len(images), 1e-6, 1 - 1e-6)
    return float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean())


def choose_backbone(
    table: ImageTable,
    class_names: ClassNames,
    templates: Sequence[str],
    decoder: Decoder,
    load: Callable[[str], Backbone],
) -> tuple[Backbone, str]:
    """The embedded backbone that finds the labels of the training images most likely by zero-shot, and why (a line).

    The likelihoods are compared, not the accuracies: with few images they tell more. A backbone that is not better
    than equal probabilities does not know the images; if none is, `DEFAULT` is taken.
    """
    rows = np.unique(np.linspace(0, len(table) - 1, min(len(table), LOOKED_AT)).round().astype(int))
    images = table.subset(rows)
    backbones = {name: load(name) for name in EMBEDDED}
    loss = {}
    for name, backbone in backbones.items():
        plain = zero_shot(backbone, class_names, templates)
        if table.multi_label:
            judge_by_images(plain, images, None, decoder)
        loss[name] = measure(plain, images, decoder=decoder).nll
    best, guess = min(loss, key=lambda name: loss[name]), _guess(images)
    figures = ", ".join(f"{name} {value:.2f}" for name, value in loss.items())
    if loss[best] < guess:
        return backbones[best], f"best zero-shot likelihood on the training images ({figures} nats; lower is better)"
    return backbones[DEFAULT], f"no embedded backbone knows these images ({figures} nats; a guess has {guess:.2f})"
