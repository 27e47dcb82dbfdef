"""What to do next after a fit, from what was measured: the first thing a reader wants."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daptune import metrics
from daptune.measured import Measured
from daptune.methods.mislabelled import LabelCheck
from daptune.report.step import Step

MOST_CLASSES = 3
FEW_SHOTS = 16  # images of a class in training; with fewer, more images are the surest remedy


@dataclass(frozen=True)
class Places:
    """What the commands name: the adapter and the folder of images, or None if it is not known."""

    adapter: str = "adapter"
    images: str | None = None

    def command(self, verb: str, *words: str) -> str:
        return f"daptune {verb} {' '.join(word if word.isupper() else shlex.quote(word) for word in words)}"


def next_steps(
    names: Sequence[str],
    places: Places,
    *,
    found: dict[str, Measured] | None = None,
    check: LabelCheck | None = None,
    backbone: str | None = None,
    shots: int | None = None,
) -> list[Step]:
    """The steps, the one that likely helps most first; at least one.

    names     of the classes
    found     what was measured, zero-shot first and the method last; None: nothing
    check     of the training labels, if they are known
    backbone  the line on a backbone that does badly, if it does
    shots     training images of each class, if there is a limit
    """
    images, steps = places.images or "IMAGES", list[Step]()
    if places.images is None:
        text = "Mistakes, calibration, maps and labels to check need the images: add --images FOLDER."
        steps.append(Step(text, places.command("report", places.adapter, "--images", "FOLDER")))
    if backbone is not None:
        steps.append(Step(backbone[0].upper() + backbone[1:]))
    if found is not None and len(found) > 1:
        plain, learned = next(iter(found.values())), list(found.values())[-1]
        if learned.accuracy < plain.accuracy:
            text = "Zero-shot CLIP is better on these images than what was learned: let cross-validation choose."
            steps.append(Step(text, places.command("fit", images, "--method", "auto", "--out", places.adapter)))
    if check is not None and (flagged := int(check.flagged.sum())) > check.expected:
        labels = "the flagged training label" if flagged == 1 else f"the {flagged} flagged training labels"
        steps.append(Step(f"Look at {labels} below, correct those that are wrong, and fit again."))
    if found is not None:
        steps += _weak_classes(list(found.values())[-1], names, places, shots)
    if not steps:
        text = "No finding asks for a change. Label new images:"
        steps.append(Step(text, places.command("predict", places.adapter, "PICTURES")))
    return steps


def _weak_classes(measured: Measured, names: Sequence[str], places: Places, shots: int | None) -> list[Step]:
    """More images for classes that are surely below the others, by their intervals; or of each if there are few."""
    hits, counts = class_hits(measured, len(names))
    low = [
        c
        for c in np.flatnonzero(counts).tolist()
        if metrics.share_interval(int(hits[c]), int(counts[c]))[1] < measured.accuracy
    ]
    low.sort(key=lambda c: (hits[c] / counts[c], c))
    command = places.command("suggest", places.adapter, "UNLABELLED", "-n", "20", "--out", "next/")
    if low:
        listed = ", ".join(names[c] for c in low[:MOST_CLASSES])
        text = f"Add training images of {listed}, which are surely below the others. Which images to label next:"
        return [Step(text, command)]
    if shots is not None and shots < FEW_SHOTS and measured.accuracy < 1:
        return [Step(f"Add training images: it learned from {shots} of each class. Which to label next:", command)]
    return []


def class_hits(measured: Measured, classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Correct predictions and images of each class, (C,) each."""
    matrix = metrics.confusion_matrix(measured.labels, measured.predicted, classes)
    return matrix.diagonal(), matrix.sum(axis=1)


def share_of(hits: int, count: int) -> str:
    """`1 of 26, 4 %, interval 1 to 19 %`: a share with what it stands on."""
    low, high = metrics.share_interval(hits, count)
    return f"{hits} of {count}, {100 * hits / count:.0f} %, 95 % interval {100 * low:.0f} to {100 * high:.0f} %"
