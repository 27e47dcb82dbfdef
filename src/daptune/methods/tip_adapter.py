"""Tip-Adapter: a cache of the support images' features added to the zero-shot classifier; nothing is trained.

Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification", ECCV 2022, arXiv 2207.09519,
section 3. Official: gaopengcuhk/Tip-Adapter main.py, utils.py; alpha and beta as named there.

Differences to the official code: alpha and beta are searched only on validation images (main_imagenet.py: on the test
images) and stay as given without them; exp(logit_scale) is the backbone's instead of 100; all in float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from .base import SupportSet
from .options import Views, Weight, two_above
from .support import check_labels, encode_batches, one_hot, view_features
from .zero_shot import ZeroShot, ZeroShotConfig

MOST_AFFINITIES = 1 << 25  # of validation images and keys at once in the search


@dataclass(frozen=True)
class TipAdapterConfig(ZeroShotConfig):
    """Options of Tip-Adapter: those of the zero-shot classifier, and of its cache."""

    views: Views = 10
    """Augmented views averaged in a key; 0: the evaluation transform."""
    alpha: Weight = 1.17
    """Weight of the cache relative to the zero-shot logits; replaced by the search."""
    beta: Weight = 1.0
    """Sharpness of the affinity; replaced by the search."""
    search: bool = True
    """Search beta and alpha on the validation images, if present."""
    search_to: Annotated[tuple[float, ...], two_above(0.1)] = (7.0, 3.0)
    """Upper limits, exclusive, of the search for beta and alpha; both start at 0.1."""
    search_steps: Annotated[tuple[int, ...], two_above(0)] = (200, 20)
    """Numbers of values of beta and alpha in the search."""


class TipAdapter(ZeroShot):
    """logits = exp(logit_scale) z W^T + alpha exp(-beta (1 - z K^T)) L, K the n cached keys, L their one-hot labels."""

    name = "tip_adapter"
    title = "Tip-Adapter"
    year = 2022
    config_class = TipAdapterConfig
    accepts_new_classes = False
    uses_validation = True
    sees = "features"
    config: TipAdapterConfig
    keys: Tensor
    key_labels: Tensor
    alpha: Tensor
    beta: Tensor

    def build(self, generator: torch.Generator) -> None:
        """K (n, D) and its labels (n,), empty until `before_fit`; alpha and beta, scalars."""
        super().build(generator)
        with torch.device(self.clip.device):
            self.hold(torch.zeros(0, self.clip.config.embed_dim), torch.zeros(0))
            self.register_buffer("alpha", torch.tensor(self.config.alpha))
            self.register_buffer("beta", torch.tensor(self.config.beta))

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, R, R) -> (B, C); those of zero-shot CLIP while the cache is empty."""
        z = self.image_features(images)
        cached = (-self.beta * (1 - z @ self.keys.mT)).exp() @ one_hot(self.key_labels, len(self.class_names))
        return self.scale * z @ self.text_features().mT + self.alpha * cached

    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        features, labels = view_features(self.clip, train, self.config.views, unit=False)
        check_labels(self.name, labels, self.class_names, all_classes=False)
        self.hold(features / features.norm(dim=-1, keepdim=True), labels.float())
        self.alpha.fill_(self.config.alpha)
        self.beta.fill_(self.config.beta)
        self.search(val)

    def hold(self, keys: Tensor, labels: Tensor) -> None:
        """Set the cache: K (n, D) and its labels (n,), both float32, which is exact for labels up to 2^24."""
        self.register_buffer("keys", keys)
        self.register_buffer("key_labels", labels)

    @torch.no_grad()
    def search(self, val: SupportSet | None) -> None:
        """Set alpha and beta to the most accurate values on the validation images; the smallest on ties."""
        if val is None or not self.config.search:
            return
        z, labels = encode_batches(self.image_features, val.evaluation(), self.clip.device)
        values, rows = one_hot(self.key_labels, len(self.class_names)), max(1, MOST_AFFINITIES // len(self.keys))
        grids = zip(self.config.search_to, self.config.search_steps, strict=True)
        betas, alphas = ([0.1 + i * (top - 0.1) / steps for i in range(steps)] for top, steps in grids)
        right = np.zeros((len(betas), len(alphas)), np.int64)
        for z_part, truth in zip(z.split(rows), labels.split(rows), strict=True):
            zero_shot, distance = self.scale * z_part @ self.text_features().mT, 1 - z_part @ self.keys.mT
            for b, beta in enumerate(betas):
                cached = (-beta * distance).exp() @ values
                for a, alpha in enumerate(alphas):
                    right[b, a] += int(((zero_shot + alpha * cached).argmax(-1) == truth).sum())
        b, a = divmod(int(right.argmax()), len(alphas))
        self.alpha.fill_(alphas[a])
        self.beta.fill_(betas[b])

    def make_room(self, state_dict: Mapping[str, Tensor]) -> None:
        new = [state_dict[name] for name in ("keys", "key_labels") if name in state_dict]
        expected = [(len(new[0]), self.keys.shape[1]), (len(new[0]),)] if new and new[0].ndim else []
        if [tensor.shape for tensor in new] == expected and new[0].shape != self.keys.shape:
            self.hold(*(torch.zeros_like(tensor, device=self.clip.device) for tensor in new))

    def support_features(self) -> tuple[Tensor, Tensor] | None:
        return (self.keys, self.key_labels) if len(self.keys) else None

    @property
    def parameter_count(self) -> int:
        """Parameters trained by gradient steps; the cached features do not count."""
        return sum(parameter.numel() for parameter in self.parameters())
