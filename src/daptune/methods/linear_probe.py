"""Linear probe: logistic regression on frozen image features, with CLIP's search for the regularisation strength C.

Radford et al. 2021, arXiv 2103.00020, appendix A.3. Official protocol of the comparisons: KaiyangZhou/CoOp
lpclip/linear_probe.py; the search: `daptune.methods.logistic`. CLIP's paper uses the features before the projection
and refits on training and validation images; both are options here.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import MethodError
from .base import Method, SupportSet
from .logistic import Arrays, fit_logistic, search_c
from .options import Fits, MethodConfig, at_least, one_of
from .support import double, encode_batches

GRID = Fits(lambda values: min(values, default=0) > 0, "one or more numbers above 0")


@dataclass(frozen=True)
class LinearProbeConfig(MethodConfig):
    features: Annotated[str, one_of(("projected", "pre_projection"))] = "projected"
    """projected (the joint embedding, D; CoOp's protocol) or pre_projection (the vision tower's, W; CLIP's paper)."""
    normalize: bool = False
    """Normalise the features to unit length."""
    c_grid: Annotated[tuple[float, ...], GRID] = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)
    """Grid of inverse regularisation strengths C; with one value and search_steps=0 there is no search."""
    search_steps: Annotated[int, at_least(0, "0 or more steps")] = 8
    """Bisections of log10 C around the best value of the grid."""
    refit: bool = False
    """Refit on training and validation images with the C found."""


class LinearProbe(Method):
    """logits = f(x) V^T + b: f is the frozen image feature, V and b are a logistic regression; no gradient steps."""

    name = "linear_probe"
    title = "Linear probe"
    year = 2021
    config_class = LinearProbeConfig
    accepts_new_classes = False
    uses_validation = True
    weighs_classes = True
    sees = "features"
    config: LinearProbeConfig
    weight: Tensor
    bias: Tensor

    def build(self, generator: torch.Generator) -> None:
        """V (C, D) and b (C,), zero until `before_fit`."""
        sizes = self.clip.config
        width = sizes.embed_dim if self.config.features == "projected" else sizes.vision_width
        classes = len(self.class_names)
        self.register_buffer("weight", torch.zeros(classes, width, device=self.clip.device))
        self.register_buffer("bias", torch.zeros(classes, device=self.clip.device))

    @property
    def encoded_size(self) -> int:
        return self.weight.shape[1]

    @property
    def encodes_plainly(self) -> bool:
        return self.config.features == "projected"

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, R, R) -> (B, D), or (B, W) before the projection."""
        return self.clip.encode_image(images, projected=self.config.features == "projected")

    def image_features(self, images: Tensor) -> Tensor:
        """CLIP's own, whatever the probe reads: (B, 3, R, R) -> (B, D)."""
        return super().image_features(self.clip.encode_image(images) if images.dim() == 4 else images)

    def frozen_features(self, images: Tensor) -> Tensor:
        """f: images or what `encode` makes of them -> (B, D) or (B, W)."""
        features = self.encode(images)
        return F.normalize(features, dim=-1) if self.config.normalize else features

    def logits(self, images: Tensor) -> Tensor:
        return F.linear(self.frozen_features(images), self.weight, self.bias)

    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        known = self._arrays(train)
        classes = len(self.class_names)
        if classes < 2 or len(np.unique(known[1])) < classes or known[1].max() >= classes:
            raise MethodError(
                f"linear_probe expected images of two or more classes and of each of its {classes}, found "
                f"{len(np.unique(known[1]))} classes with images: add images, or leave out the classes without."
            )
        held_out = None if val is None else self._arrays(val)
        weights = None if self.class_weight is None else self.class_weight.double().cpu().numpy()
        c = search_c(self.config.c_grid, self.config.search_steps, known, held_out, weights, seed=self.seed)
        if self.config.refit and held_out is not None:
            known = np.concatenate([known[0], held_out[0]]), np.concatenate([known[1], held_out[1]])
        for learned, found in zip((self.weight, self.bias), fit_logistic(c, *known, weights), strict=True):
            learned.copy_(torch.from_numpy(found))

    def _arrays(self, images: SupportSet) -> Arrays:
        features, labels = encode_batches(self.frozen_features, images.evaluation(), self.clip.device)
        return double(features), labels.cpu().numpy()
