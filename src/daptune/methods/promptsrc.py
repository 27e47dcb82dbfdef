"""PromptSRC: deep prompts on both sides, regularised towards the frozen CLIP and averaged over the epochs.

Khattak, Wasim, Naseer, Khan, Yang & Khan, "Self-regulating Prompts: Foundational Model Adaptation without Forgetting",
ICCV 2023, arXiv 2307.06948, section 3.2. Official: muzairkhattak/PromptSRC trainers/promptsrc.py. Its prompts are
those of `daptune.methods.ivlp`, the mean over epochs is `daptune.methods.epoch_average`.

Differences to the official code: only prompts are averaged, in float32; one frozen CLIP is kept instead of three;
depths beyond a tower's layers are an error instead of being ignored.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .epoch_average import EpochAverage, EpochAverageConfig
from .ivlp import IVLP, IVLPConfig
from .options import Templates, Weight
from .templates import SIXTY, template_features


@dataclass(frozen=True)
class PromptSRCConfig(EpochAverageConfig, IVLPConfig):
    """Options of PromptSRC: those of both prompts and their average, and the weights of its losses."""

    text_tokens: int = 4
    """Text prompt tokens per layer, M."""
    text_depth: int = 0
    """Layers of the text tower with their own tokens; 0: the paper's 9, or every layer of a smaller tower."""
    vision_tokens: int = 4
    """Visual prompt tokens per layer, P."""
    vision_depth: int = 0
    """Layers of the vision tower with their own tokens; 0: the paper's 9, or every layer of a smaller tower."""
    templates: Templates = ()
    """Prompts for the averaged frozen text features, each with one {}. Empty: the authors' sixty."""
    text_weight: Weight = 25.0
    """Weight of the distance between learned and frozen text features; 0 leaves it out."""
    image_weight: Weight = 10.0
    """Weight of the distance between learned and frozen image features; 0 leaves it out."""
    logit_weight: Weight = 1.0
    """Weight of the divergence of the learned predictions from the frozen ones; 0 leaves it out."""


class PromptSRC(EpochAverage, IVLP):
    """L = L_CE + text_weight |w - w0| + image_weight |z - z0| + logit_weight KL(p0 || p) / C; 0 marks the frozen CLIP.

    |.| is the mean absolute value over entries; the KL is a mean over images.
    """

    name = "promptsrc"
    title = "Prompting with Self-regulating Constraints (PromptSRC)"
    year = 2023
    config_class = PromptSRCConfig
    paper_depth = 9
    config: PromptSRCConfig
    frozen_features: Tensor | None
    """w0 (C, D), computed when first needed; not saved."""

    def build(self, generator: torch.Generator) -> None:
        super().build(generator)
        self.register_buffer("frozen_features", None, persistent=False)
        self.start_average()

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        z, w, w0 = self.image_features(images), self.class_text_features(), self._frozen_text()
        with torch.no_grad():
            z0 = F.normalize(self.clip.encode_image(images), dim=-1)
        logits, frozen = self.scale * z @ w.mT, self.scale * z0 @ w0.mT  # (B, C)
        log_p, log_p0 = logits.log_softmax(-1), frozen.log_softmax(-1)
        terms = {
            "cross_entropy": self.cross_entropy(logits, labels),
            "text": F.l1_loss(w, w0),
            "image": F.l1_loss(z, z0),
            "logit": F.kl_div(log_p, log_p0, reduction="sum", log_target=True) / logits.numel(),
        }
        weighted = [getattr(self.config, f"{name}_weight") * terms[name] for name in ("text", "image", "logit")]
        return {**terms, "total": sum(weighted, terms["cross_entropy"])}

    def _frozen_text(self) -> Tensor:
        if self.frozen_features is None:
            templates = self.config.templates or SIXTY
            self.frozen_features = template_features(self.backbone, self.prompt_names, templates, unit=False)
        return self.frozen_features
