"""Frozen features of a support set: of each view or averaged over views, and sums and means over classes."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..clip.model import CLIP
from ..clip.transfer import Transfer
from ..data.loader import Batch
from ..errors import MethodError
from .base import Method, SupportSet


@torch.no_grad()
def encode_batches(
    encode: Callable[[Tensor], Tensor], batches: Iterable[Batch], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Features (n, D) and labels (n,) of all batches, on `device`."""
    transfer = Transfer(device)
    parts = [(encode(images), labels) for images, labels in (transfer(*batch) for batch in batches)]
    if not parts:
        raise MethodError("expected labelled training images, found none: give at least one for each class.")
    features, labels = zip(*parts, strict=True)
    return torch.cat(features), torch.cat(labels)


def each_view(
    clip: CLIP, images: SupportSet, views: int, *, unit: bool, as_trained: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Frozen features of all images in table order, (n, D), and labels (n,), for one view after the other.

    views: number of augmented views; 0 uses the evaluation transform. unit: normalise each feature. as_trained: take
    the views that training returns to, if it does, and not `views` of others; then they are encoded once for both.
    Batches that are already features (B, D) are taken as they are.
    """

    def encode(batch: Tensor) -> Tensor:
        features = clip.encode_image(batch) if batch.dim() == 4 else batch
        return F.normalize(features, dim=-1) if unit else features

    passes: Iterable[Iterator[Batch]]
    if as_trained and images.augment and images.views is not None:
        passes = (images.training_view(view) for view in range(images.views))
    elif views and not (as_trained and not images.augment):
        passes = (images.augmented_view(view) for view in range(views))
    else:
        passes = [images.evaluation()]
    for batches in passes:
        yield encode_batches(encode, batches, clip.device)


def stacked_views(clip: CLIP, images: SupportSet, views: int, *, unit: bool) -> tuple[Tensor, Tensor]:
    """The features of `each_view`, kept apart: (V, n, D), V at least 1; labels (n,)."""
    features, labels = zip(*each_view(clip, images, views, unit=unit), strict=True)
    return torch.stack(features), labels[0]


def view_features(clip: CLIP, images: SupportSet, views: int, *, unit: bool) -> tuple[Tensor, Tensor]:
    """The mean over views of the features of `each_view`, normalised before the mean if `unit`: (n, D); labels (n,)."""
    total, labels = torch.zeros((), device=clip.device), torch.zeros(0)
    for features, of_view in each_view(clip, images, views, unit=unit):
        total, labels = total + features, of_view
    return total / max(views, 1), labels


def check_labels(method: str, labels: Tensor, class_names: Sequence[str], *, all_classes: bool = True) -> Tensor:
    """Images per class: labels (n,) or (n, C) -> (C,). Raises `MethodError` for a label >= C, or an empty class."""
    classes = len(class_names)
    counts = labels.sum(0) if labels.dim() == 2 else labels.bincount(minlength=classes)
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
    """(n,) of any type -> float32 (n, C); labels that are an indicator matrix (n, C) already stay so."""
    if labels.dim() == 2:
        return labels.float()
    # not F.one_hot, which synchronises on some devices
    return (labels.unsqueeze(1) == torch.arange(classes, device=labels.device)).float()


def double(tensor: Tensor) -> NDArray[np.float64]:
    """For closed forms, which are computed in float64 on the CPU."""
    found: NDArray[np.float64] = tensor.detach().double().cpu().numpy()
    return found
