"""What OpenVINO needs to know of a file to compute it in 8 bits, and to see where rounding may decide.

Every second image gives the ranges of what products are given, and the margins of near ties; the others tell how often
the answers are then those of fp32.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from daptune.clip.preprocess import Preprocess
from daptune.data.stream import decoded_batches
from daptune.data.table import ImageSource
from daptune.predict.exported import PROBABILITIES
from daptune.predict.openvino import OpenVino, Rounding, gap, inputs_of_products

LEAST, MOST = 20, 600
"""Images. Of fewer, the extremes say little; more would only take longer."""
RANGED = 64
"""Images for the ranges, at most."""
DEVIATIONS = 3.0
"""A tie is near within so many standard deviations of what the rounding changes."""
BATCH = 16
Pixels = NDArray[np.float32]


def can_measure() -> bool:
    return find_spec("openvino") is not None


def measured(
    content: bytes, sources: Sequence[ImageSource], preprocess: Preprocess, levels: NDArray[np.float32] | None
) -> Rounding:
    """Of an fp32 file. `levels` (C,) as for `gap`. Nothing, if there are too few images, or the file has no end of an
    image tower."""
    ours, others = sources[:MOST:2], sources[1:MOST:2]
    engine = OpenVino(content, precision="fp32")
    if len(sources) < LEAST or engine.tower is None:
        return Rounding()
    lowest, highest = dict[str, float](), dict[str, float]()
    seen = inputs_of_products(engine.tower)
    for images in batches(ours[:: -(-len(ours) // RANGED)], preprocess):
        for name, values in seen(images).items():
            lowest[name] = min(lowest.get(name, np.inf), float(values.min()))
            highest[name] = max(highest.get(name, -np.inf), float(values.max()))
    if not lowest:  # every second image cannot be read
        return Rounding()
    found = Rounding({name: (lowest[name], highest[name]) for name in lowest})
    rounded = ["bf16", "int8"] if engine.has_bf16 else ["int8"]
    engines = {name: OpenVino(content, precision=name, rounding=found) for name in rounded}
    moved: dict[str, list[Pixels]] = {name: [] for name in rounded}
    for images in batches(ours, preprocess):
        sure = engine.at("fp32", images)[PROBABILITIES]
        for name, each in engines.items():
            moved[name].append(deviations(sure, each.at(name, images)[PROBABILITIES], levels))
    margins = {name: DEVIATIONS * float(np.sqrt(np.mean(np.concatenate(moved[name]) ** 2))) for name in rounded}
    return checked(content, replace(found, margins=margins), batches(others, preprocess), levels)


def deviations(sure: Pixels, found: Pixels, levels: NDArray[np.float32] | None) -> Pixels:
    """How far rounding moves what `gap` measures, for each image, (B,), or with `levels` each class of it, from the
    probabilities (B, C) without and with it."""
    if levels is not None:
        return np.asarray(found - sure).ravel()
    if found.shape[1] < 2:
        return np.zeros(len(found), np.float32)
    second, first = np.take_along_axis(found - sure, np.argsort(found, axis=1)[:, -2:], axis=1).T
    return np.asarray(first - second)


def checked(content: bytes, found: Rounding, images: Iterator[Pixels], levels: NDArray[np.float32] | None) -> Rounding:
    """With `same`, `again` and `images` of these images."""
    engines = {name: OpenVino(content, precision=name, rounding=found) for name in found.margins}
    exact = OpenVino(content, precision="fp32")
    same, again, count = dict.fromkeys(engines, 0), dict.fromkeys(engines, 0), 0
    for batch in images:
        sure = said(exact.at("fp32", batch)[PROBABILITIES], levels)
        count += len(batch)
        for name, engine in engines.items():
            first = engine.at(name, batch)
            again[name] += int((gap(first[PROBABILITIES], levels) < found.margins[name]).sum())
            last = said(engine.decided(first, batch)[PROBABILITIES], levels)
            same[name] += int((last == sure).all(axis=1).sum())
    shares = [{name: number / max(count, 1) for name, number in each.items()} for each in (same, again)]
    return replace(found, same=shares[0], again=shares[1], images=count)


def said(probabilities: Pixels, levels: NDArray[np.float32] | None) -> NDArray[np.int64]:
    """The answers, rows that are equal for equal ones."""
    if levels is not None:
        return (probabilities >= levels).astype(np.int64)
    return np.asarray(probabilities.argmax(axis=1)[:, None])


def batches(sources: Sequence[ImageSource], preprocess: Preprocess) -> Iterator[Pixels]:
    """Of those images that can be read."""
    for batch in decoded_batches(sources, preprocess, BATCH):
        if batch.indices:
            yield batch.images
