"""Class weights for other programs with the same CLIP: a .npy file and a CSV file.

Row c is W_c = exp(logit_scale) / temperature * w_c with the text feature w_c of class c. The probabilities of a unit
image feature z of the same CLIP are softmax(z W^T). A normalised row is the unit text feature. A method with a learned
projection of the image tower writes it, (V, D), as a second .npy file: z is that of the CLIP with it as `visual.proj`,
or transposed as `visual.attnpool.c_proj.weight`.
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

NEAR = 1e-3  # tolerance for equal logits


@dataclass(frozen=True)
class Weights:
    paths: tuple[Path, ...]
    """The .npy, the CSV, and with a learned projection its .npy."""
    shape: tuple[int, int]
    scale: float  # factor of the text features
    warning: str | None  # what is missing if these weights are not the whole classifier


@torch.no_grad()
def export_weights(classifier: FewShotClassifier, out: str | Path) -> Weights:
    """Write `out` (.npy, float32 (C, D)) and the same values as CSV (per row the class and D numbers).

    A learned projection (`Method.visual_projection`) is written beside it, as `<out>-projection.npy`, float32 (V, D).

    Raises MethodError for a method without text features, DataError for a bad `out`.
    """
    classifier.check_single_label("--to text-weights")
    target = check_out(Path(out), ".npy")
    method = classifier.method_
    weights = method.logit_weights()
    if weights.dim() != 2:  # several contexts: export their mean
        weights = method.text_features()
    scale = float(method.scale) / classifier.record_.temperature
    values: NDArray[np.float32] = (scale * weights).float().cpu().numpy()
    table = target.with_suffix(".csv")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["class", *(f"d{place}" for place in range(values.shape[1]))])
    for name, row in zip(method.class_names, values, strict=True):
        rows.writerow([name, *(f"{value:.9g}" for value in row)])  # 9 digits identify a float32
    files.write(target, _npy(values))
    files.write(table, text.getvalue().encode())
    paths: tuple[Path, ...] = (target, table)
    projection = method.visual_projection()
    if projection is not None:
        paths += (target.with_name(f"{target.stem}-projection.npy"),)
        files.write(paths[-1], _npy(projection.float().cpu().numpy()))
    return Weights(paths, (len(values), values.shape[1]), scale, _missing(classifier, weights))


def _npy(values: NDArray[np.float32]) -> bytes:
    binary = io.BytesIO()
    np.save(binary, values, allow_pickle=False)
    return binary.getvalue()


def _missing(classifier: FewShotClassifier, weights: Tensor) -> str | None:
    """Compare features and logits on random images and say what the weights lack."""
    if classifier.method_.ensemble is not None:
        return (
            "these are the learned prompts' weights: the adapter also answers by hand-written prompts and training "
            "images, which are not in them; fit with --ensemble none, or export the whole classifier with --to onnx"
        )
    method, side = classifier.method_, classifier.backbone_.preprocess.size
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0)).to(method.clip.device)
    projection = method.visual_projection()
    plain = method.clip.encode_image(images, projected=projection is None)
    plain = F.normalize(plain if projection is None else method.clip.visual.project(plain, projection), dim=-1)
    if not torch.allclose(plain, method.image_features(images), atol=1e-5):
        return (
            f"{method.name} also changes the image tower: these weights are only the text half, and with plain CLIP "
            "image features they do not reproduce the adapter's predictions; --to onnx exports the whole classifier"
        )
    if not torch.allclose(method.scale * plain @ weights.mT, method.logits(images), atol=NEAR):
        return (
            f"{method.name} has more than class weights: these alone do not reproduce the adapter's predictions; "
            "--to onnx exports the whole classifier"
        )
    return None
