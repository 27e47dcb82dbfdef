"""Frozen features of a support set: averages over views, and sums and means over classes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.model import CLIP
from ..errors import MethodError
from .base import Method, SupportSet, encode_batches


def view_features(clip: CLIP, images: SupportSet, views: int, *, unit: bool) -> tuple[Tensor, Tensor]:
    """Frozen features of all images in table order, the mean over `views` augmented views: (n, D); labels (n,).

    views: 0 uses the evaluation transform. unit: normalise the feature of each view before the mean. Batches that are
    already features (B, D) are taken as they are.
    """

    def encode(batch: Tensor) -> Tensor:
        return clip.encode_image(batch) if batch.dim() == 4 else batch

    passes = [images.augmented_view(view) for view in range(views)] if views else [images.evaluation()]
    total, labels = torch.zeros((), device=clip.device), torch.zeros(0)
    for batches in passes:
        features, labels = encode_batches(encode, batches, clip.device)
        total = total + (F.normalize(features, dim=-1) if unit else features)
    return total / len(passes), labels


def check_labels(method: str, labels: Tensor, class_names: Sequence[str], *, all_classes: bool = True) -> Tensor:
    """Images per class: labels (n,) -> (C,). Raises `MethodError` for a label >= C, or a class without images."""
    classes = len(class_names)
    counts = labels.bincount(minlength=classes)
    if len(counts) > classes:
        raise MethodError(f"{method} expected labels below {classes}, found {int(labels.max())}: correct the labels.")
    if all_classes and not counts.all():
        name = class_names[int(counts.argmin())]
        raise MethodError(f"{method} expected images of every class, found none of {name!r}: add one, or leave it out.")
    return counts


def class_sums(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Sum of the features of each class: (n, D), (n,) -> (C, D). A matrix product is deterministic."""
    return one_hot(labels, classes).mT @ features


def class_means(method: Method, images: SupportSet, views: int, *, unit: bool) -> Tensor:
    """Mean of `view_features` over the images of each class, not normalised again: (C, D)."""
    features, labels = view_features(method.clip, images, views, unit=unit)
    counts = check_labels(method.name, labels, method.class_names)
    return class_sums(features, labels, len(counts)) / counts.unsqueeze(1)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(n,) of any type -> float32 (n, C)."""
    # not F.one_hot, which synchronises on some devices
    return (labels.unsqueeze(1) == torch.arange(classes, device=labels.device)).float()
