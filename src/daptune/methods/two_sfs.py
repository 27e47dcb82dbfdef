"""2SFS: layer norms of both towers first, then a classifier that starts at the text features, in one fit.

Farina, Mancini, Iacca & Ricci, "Rethinking Few-Shot Adaptation of Vision-Language Models in Two Stages", CVPR 2025,
arXiv 2503.11609, section 4. Official: FarinaMatteo/rethinking_fewshot_vlms fs/twostage.py, fs/utils/model_utils.py. The
blocks are those of `daptune.clip.norms`.

    stage 1    z . t_c                     ln_1 and ln_2 of all blocks learn; t_c = text("a photo of a {class c}.")
    stage 2    z . normalise(t_c + x_c)    only x learns, from zero; z and t stay as stage 1 leaves them
    answers    x_c = 0 for a class that was not in the fit: its text feature by the adapted text tower

Differences to the official code: its classifier is t_c + x_c as one tensor, so that weight decay shortens it; here
decay pulls to the text. Batches go on in the order of the epoch at the change of stages, where it begins a new one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.norms import Norms
from ..names import name_key
from .adapted import AdaptedConfig, AdaptedTowers
from .options import Share


@dataclass(frozen=True)
class TwoSFSConfig(AdaptedConfig):
    """Options of 2SFS: those of the adapted towers, and the length of the first stage."""

    first_stage: Share = 0.6
    """Share alpha of the steps that learn the layer norms; the others learn the classifier."""


class TwoSFS(AdaptedTowers):
    """w_c = normalise(t_c + x_c): the layer norms behind z and t learn in the first stage, x in the second."""

    name = "two_sfs"
    title = "Two-Stage Few-Shot Adaptation (2SFS)"
    year = 2025
    config_class = TwoSFSConfig
    default_lr = 0.001  # the 0.01 of prompts overfits
    config: TwoSFSConfig
    residual: nn.Parameter
    start: Tensor | None
    """t (C, D) as the first stage left it, while the second is trained; not saved."""

    def build(self, generator: torch.Generator) -> None:
        """Weights and biases (J, 2, W) of each tower's norms, the tower's at first; x (C, D), zero."""
        super().build(generator)
        config, clip = self.config, self.clip
        self.text_norms = Norms(clip.text.transformer) if config.adapts("text") else None
        self.vision_norms = Norms(clip.visual.transformer) if config.adapts("vision") else None
        self.residual = nn.Parameter(torch.zeros(len(self.class_names), clip.config.embed_dim, device=clip.device))
        self.register_buffer("start", None, persistent=False)
        self.stages = (config.first_stage,)

    def adaptation(self, side: str) -> Norms | None:
        return self.text_norms if side == "text" else self.vision_norms

    def encode_images(self, images: Tensor) -> Tensor:
        """Features of the adapted tower, without gradient in training's second stage: (B, 3, R, R) -> (B, D)."""
        if not (self.training and self.stage):
            return super().encode_images(images)
        with torch.no_grad():
            return super().encode_images(images)

    def logit_weights(self) -> Tensor:
        """w (C, D); in training with the gradient of the stage."""
        if not self.training:
            return F.normalize(self.text_features() + self.residual, dim=-1)
        if not self.stage:
            self.start = None
            return F.normalize(self.text_features() + self.residual.detach(), dim=-1)
        if self.start is None:
            with torch.no_grad():
                self.start = self.text_features()
        return F.normalize(self.start + self.residual, dim=-1)

    def make_room(self, state_dict: Mapping[str, Tensor]) -> None:
        self.start = None  # other norms are about to be loaded

    def for_own_classes(self, learned: Mapping[str, Tensor], names: Sequence[Sequence[str]]) -> Mapping[str, Tensor]:
        """With the rows of x by class: those of the classes that both have, zero for the others.

        Classes are the same if CLIP reads the same names; of several such, the one whose names are spelled alike.
        """
        found = learned.get("residual")
        if found is None or len(found) != len(names):
            return learned
        pairs = [(tuple(own), row.to(self.device)) for own, row in zip(names, found, strict=True)]
        spelled, read = dict(pairs), {frozenset(map(name_key, own)): row for own, row in pairs}
        nothing = torch.zeros(found.shape[1], device=self.device)
        rows = [spelled.get(own, read.get(frozenset(map(name_key, own)), nothing)) for own in self.prompt_names]
        return {**learned, "residual": torch.stack(rows)}
