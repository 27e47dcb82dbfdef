"""DAPT: learn prompts that spread the classes on the sphere and gather images around their class.

Cho, Kim & Kim, "Distribution-Aware Prompt Tuning for Vision-Language Models", ICCV 2023, arXiv 2309.03406,
section 3. Official: mlvlab/DAPT trainers/dapt.py. The losses are means as in the official code, for which the
published weights were tuned (`daptune.methods.losses` gives the factors to sums).

Differences to the official code: prototypes use the evaluation transform unless `prototype_views` is set (1 is the
official code); they are computed in batches in `before_fit`; prototypes and prompts are float32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import MethodError
from .base import SupportSet
from .coop_vpt import CoOpVPT, CoOpVPTConfig
from .losses import inter_dispersion, intra_dispersion, intra_dispersion_of_several
from .options import Positive, Views, Weight
from .support import class_means


@dataclass(frozen=True)
class DAPTConfig(CoOpVPTConfig):
    """Options of DAPT: those of both prompts, and the weights of its losses."""

    inter_weight: Weight = 0.1
    """Weight of inter-dispersion, which spreads the text features of the classes (TXT_BETA); 0 leaves it out."""
    intra_weight: Weight = 0.1
    """Weight of intra-dispersion, which gathers the images around their prototype (VIS_BETA); 0 leaves it out."""
    t: Positive = 2.0
    """How fast the repulsion between classes falls with their squared distance."""
    prototype_views: Views = 0
    """Augmented views averaged in a prototype; 0: the evaluation transform, 1: as in the official code."""


class DAPT(CoOpVPT):
    """L = L_CE + inter_weight L_inter + intra_weight L_intra.

    L_inter trains only the text prompt, L_intra only the visual prompt, L_CE both. Of images with any number of labels,
    L_CE is the binary cross-entropy, and L_intra draws an image to the prototype of each of its labels
    (`losses.intra_dispersion_of_several`).
    """

    name = "dapt"
    title = "Distribution-Aware Prompt Tuning (DAPT)"
    year = 2023
    config_class = DAPTConfig
    multi_label = True
    config: DAPTConfig
    prototypes: Tensor | None
    """s_c (C, D), set by `before_fit`; not saved, since only training uses it."""

    def build(self, generator: torch.Generator) -> None:
        super().build(generator)
        self.register_buffer("prototypes", None, persistent=False)

    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        """s_c = mean over the class's images of the unit zero-shot feature, not normalised again."""
        self.prototypes = class_means(self, train, self.config.prototype_views, unit=True)

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        z = self.image_features(images)  # (B, D)
        w = self.class_text_features()  # (C, D)
        terms = {
            "cross_entropy": self.cross_entropy(self.scaled(z, w), labels),
            "inter": inter_dispersion(w, self.config.t),
            "intra": self._intra(z, labels),
        }
        weighted = self.config.inter_weight * terms["inter"] + self.config.intra_weight * terms["intra"]
        return {**terms, "total": terms["cross_entropy"] + weighted}

    def _intra(self, z: Tensor, labels: Tensor) -> Tensor:
        expected = (len(self.class_names), z.shape[1])
        if self.prototypes is None:
            if self.config.intra_weight:
                raise MethodError(f"dapt has no prototypes: call before_fit(train), or set `prototypes` {expected}.")
            return z.new_zeros(())
        if tuple(self.prototypes.shape) != expected:
            raise MethodError(f"dapt expected prototypes of shape {expected}, found {tuple(self.prototypes.shape)}.")
        if self.sigmoids is not None:
            return intra_dispersion_of_several(z, self.prototypes, labels)
        return intra_dispersion(z, self.prototypes[labels])
