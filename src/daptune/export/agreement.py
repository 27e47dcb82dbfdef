"""Agreement of an exported file with torch, measured on images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from daptune.classifier import FewShotClassifier
from daptune.data.demo import ARCHIVE, PHOTO_ARCHIVE, demo_styles
from daptune.data.folders import image_files
from daptune.data.stream import decoded_batches
from daptune.data.table import ImageSource
from daptune.errors import DataError
from daptune.predict.onnx import OnnxClassifier

TARGETS = {"fp32": 0.999, "fp16": 0.999, "int8": 0.99}
"""Minimum share of images with the same predicted class, by number format."""
BATCHES = (1, 3, 32)  # batch sizes of the measurement; all differ from the traced one
_DEMO = {"photo": (PHOTO_ARCHIVE, "caltech101/test/"), "tiny": (ARCHIVE, f"{demo_styles()[0]}/validation/")}
"""What the embedded backbones are measured on."""
RANDOM = "random images; use --images FOLDER for your own"
MOST = 1_000  # maximum number of images; more would only take longer


@dataclass(frozen=True)
class Agreement:
    images: int
    source: str
    max_logit_difference: float
    top1: float  # share of images with the same predicted class, or the same classes
    batches: tuple[int, ...] = BATCHES
    predict_precision: str = "fp32"
    """Precision in which `daptune predict` runs the adapter on this machine."""
    predict_top1: float | None = None
    """Share of images with the same class as there; None where it is fp32, as for `top1`."""


def images_for(classifier: FewShotClassifier, folder: Path | None) -> tuple[list[ImageSource], str]:
    """Images to measure on, and their description: from a folder, the demo (embedded backbone), or random."""
    if folder is not None:
        files = list(image_files(folder.expanduser()))
        if not files:
            raise DataError(f"no image files in {folder}; name a folder with images")
        places = np.linspace(0, len(files) - 1, min(len(files), MOST)).round().astype(int)
        return [files[place] for place in places], f"images of {folder.name}"
    if known := _DEMO.get(classifier.backbone_.name):
        archive, part = known
        with ZipFile(archive) as packed:
            return [packed.read(name) for name in packed.namelist() if name.startswith(part)], "pictures of the demo"
    return made_up(), RANDOM


def made_up(count: int = 100) -> list[ImageSource]:
    """Random colour fields with noise, 64 x 64 pixels, the same on every machine."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (count, 4, 4, 3)).repeat(16, 1).repeat(16, 2)
    noisy = coarse + rng.normal(0, 20, coarse.shape)
    return list(noisy.clip(0, 255).astype(np.uint8))


def measure(
    classifier: FewShotClassifier,
    exported: OnnxClassifier,
    images: Sequence[ImageSource],
    source: str,
    beside: FewShotClassifier | None = None,
) -> Agreement:
    """Compare the logits of both on the same images; the file runs in batches of `BATCHES` in turn.

    beside: the classifier in the precision of `daptune predict`, whose classes are compared as well. Raises DataError
    if no image can be read.
    """
    seen, equal, same, largest = 0, 0, 0, 0.0
    for batch in decoded_batches(images, exported.preprocess, sum(BATCHES)):
        if not batch.indices:
            continue
        pixels = batch.images  # (b, 3, R, R)
        expected = _logits(classifier, pixels)
        parts = np.split(pixels, np.cumsum(BATCHES)[:-1])
        found = np.concatenate([exported.logits(part) for part in parts])
        seen += len(found)
        equal += _agree(found, expected, exported)
        largest = max(largest, float(np.abs(found - expected).max()))
        if beside is not None:
            same += _agree(found, _logits(beside, pixels), exported)
    if not seen:
        raise DataError(f"none of the {len(images)} images can be read; name a folder with images")
    if beside is None:
        return Agreement(seen, source, largest, equal / seen)
    return Agreement(seen, source, largest, equal / seen, BATCHES, beside.backbone_.precision, same / seen)


def _agree(found: NDArray[np.float32], expected: NDArray[np.float32], exported: OnnxClassifier) -> int:
    """How many images have the same prediction by two arrays of logits, (n, C)."""
    if (levels := exported.thresholds) is None:
        return int((found.argmax(1) == expected.argmax(1)).sum())
    a, b = (1 / (1 + np.exp(-logits / exported.metadata.temperature)) >= levels for logits in (found, expected))
    return int((a == b).all(axis=1).sum())


def _logits(classifier: FewShotClassifier, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    method = classifier.method_
    with torch.inference_mode():
        found: NDArray[np.float32] = (
            method.answer(torch.from_numpy(pixels).to(method.clip.device)).float().cpu().numpy()
        )
    return found
