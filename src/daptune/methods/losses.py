"""The losses of DAPT (Cho, Kim & Kim, ICCV 2023, arXiv 2309.03406, section 3; mlvlab/DAPT trainers/dapt.py).

All are computed in float32. z: unit image features (B, D); w: unit text features (C, D); s: prototypes (D each).
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

ROWS = 1024  # rows of the C x C kernel per block; with more classes, blocks are recomputed in the backward pass


def cross_entropy(logits: Tensor, labels: Tensor, class_weight: Tensor | None = None) -> Tensor:
    """-mean over B of a_y log softmax(logits)[y]: logits (B, C), labels (B,) int64, weights a (C,) or 1 -> scalar.

    The sum is divided by B and not by the weights in the batch (torch's `weight`), so that losses of parts of a batch
    add up to that of the whole.
    """
    if class_weight is None:
        return F.cross_entropy(logits.float(), labels)
    return (class_weight[labels] * F.cross_entropy(logits.float(), labels, reduction="none")).mean()


def inter_dispersion(text_features: Tensor, t: float = 2.0) -> Tensor:
    """Mean over the C(C-1)/2 unordered pairs of exp(-t |w_m - w_n|^2): (C, D) -> scalar; 0 for one class.

    The official code's reduction, `torch.pdist(w).pow(2).mul(-t).exp().mean()`; the sum over ordered pairs m != n is
    C(C-1) times this. Distances come from a matrix product, without the square root, whose gradient is undefined for
    equal features; the gradient is exact for w of any length.
    """
    w = text_features.float()
    classes = len(w)
    if classes < 2:
        return 0 * w.sum()
    recompute = classes > ROWS and torch.is_grad_enabled() and w.requires_grad
    blocks = [
        checkpoint(_kernel_sum, w, start, t, use_reentrant=False) if recompute else _kernel_sum(w, start, t)
        for start in range(0, classes, ROWS)
    ]
    return torch.stack(blocks).sum() / (classes * (classes - 1) / 2)


def _kernel_sum(w: Tensor, start: int, t: float) -> Tensor:
    """Sum of exp(-t |w_m - w_n|^2) over m in start..start + ROWS - 1 and n > m."""
    rows, rest = w[start : start + ROWS], w[start:]
    squared = rows.square().sum(-1, keepdim=True) + rest.square().sum(-1) - 2 * rows @ rest.mT  # (ROWS, C - start)
    return squared.mul(-t).exp().triu(1).sum()


def intra_dispersion(image_features: Tensor, prototypes: Tensor) -> Tensor:
    """Mean over B and D of (z - s_y)^2: features (B, D), the prototypes of their labels (B, D) -> scalar.

    The official code's `F.mse_loss(z, s[y])`. The sum form, mean over B of |z - s_y|^2, is D times this: scale its
    weights by D.
    """
    return F.mse_loss(image_features.float(), prototypes.float())


def intra_dispersion_of_several(image_features: Tensor, prototypes: Tensor, labels: Tensor) -> Tensor:
    """Each image is drawn to the prototypes of all its labels: (B, D), (C, D), indicator matrix (B, C) -> scalar.

    Mean over B and D of the mean over the labels y of an image of (z - s_y)^2; an image without labels counts 0. With
    one label for each image it is `intra_dispersion`.
    """
    z, s, shown = image_features.float(), prototypes.float(), labels.float()
    squared = z.square().sum(-1, keepdim=True) + s.square().sum(-1) - 2 * z @ s.mT  # (B, C)
    return ((squared * shown).sum(-1) / shown.sum(-1).clamp(min=1)).mean() / z.shape[1]
