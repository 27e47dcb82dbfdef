"""The class weights alone, for use with the same CLIP in any other program: a .npy file and a CSV beside it.

Row c is W_c = exp(logit_scale) / temperature times w_c, w_c the text feature that the method multiplies image features
with. So with the unit image feature z of the same CLIP, softmax(z W^T) are the probabilities. A row divided by its
length is the unit text feature.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from daptune import files
from daptune.classifier import FewShotClassifier
from daptune.export.onnx_file import check_out

NEAR = 1e-3
"""Difference of logits up to which two ways to compute them are called the same."""


@dataclass(frozen=True)
class Weights:
    """What was written."""

    paths: tuple[Path, Path]
    shape: tuple[int, int]
    scale: float
    """What the text features were multiplied by."""
    warning: str | None
    """What is missing, where these weights alone are not the whole classifier."""


@torch.no_grad()
def export_weights(classifier: FewShotClassifier, out: str | Path) -> Weights:
    """Write `out` (.npy, float32 (C, D)) and the same as CSV (class, then D numbers a row).

    Raises MethodError for a method without text features, DataError for a bad `out`.
    """
    target = check_out(Path(out), ".npy")
    method = classifier.method_
    weights = method.logit_weights()
    if weights.dim() != 2:  # several contexts: their mean is what there is
        weights = method.text_features()
    scale = float(method.scale) / classifier.record_.temperature
    values: NDArray[np.float32] = (scale * weights).float().cpu().numpy()
    table = target.with_suffix(".csv")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["class", *(f"d{place}" for place in range(values.shape[1]))])
    for name, row in zip(method.class_names, values, strict=True):
        rows.writerow([name, *(f"{value:.9g}" for value in row)])  # the digits that float32 needs
    binary = io.BytesIO()
    np.save(binary, values, allow_pickle=False)
    files.write(target, binary.getvalue())
    files.write(table, text.getvalue().encode())
    return Weights((target, table), (len(values), values.shape[1]), scale, _missing(classifier, weights))


def _missing(classifier: FewShotClassifier, weights: Tensor) -> str | None:
    """What the weights lack, found by comparing logits and image features on made-up images."""
    method, side = classifier.method_, classifier.backbone_.preprocess.size
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0)).to(method.clip.device)
    plain = F.normalize(method.clip.encode_image(images), dim=-1)
    if not torch.allclose(plain, method.image_features(images), atol=1e-5):
        return (
            f"{method.name} changes the image tower as well: these weights are only the text half, and on plain CLIP "
            "image features they do not answer as the adapter does; --to onnx exports the whole"
        )
    if not torch.allclose(method.scale * plain @ weights.mT, method.logits(images), atol=NEAR):
        return (
            f"{method.name} has more than class weights: with these alone the answers are not the adapter's; "
            "--to onnx exports the whole"
        )
    return None
