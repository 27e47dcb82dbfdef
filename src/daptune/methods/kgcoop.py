"""KgCoOp: CoOp with class features kept close to those of zero-shot CLIP.

Yao, Zhang & Xu, "Visual-Language Prompt Tuning with Knowledge-guided Context Optimization", CVPR 2023,
arXiv 2303.13283, section 3. Official: htyao89/KgCoOp KgCoOp/trainers/kgcoop.py.

Differences to the official code: the weight is 8, as in its scripts (the default of its code is 1); frozen features
may average several templates; its unused tensors (meta_net, bias_vectors, adapter) and its failing mixed-precision
branch are left out.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .coop import CoOp, CoOpConfig
from .options import Weight
from .templates import find_dataset, template_features
from .text_prompts import PhraseConfig
from .zero_shot import ZeroShotConfig

TEXTURE = "a photo of a {}, a type of texture."  # KgCoOp's for DescribableTextures; CoOp's is "{} texture."


@dataclass(frozen=True)
class KgCoOpConfig(ZeroShotConfig, PhraseConfig, CoOpConfig):
    """Options of KgCoOp: those of CoOp's context and of the frozen prompts, and the weight of their distance."""

    knowledge_weight: Weight = 8.0
    """Weight of the distance between learned and frozen text features (lambda); 0 is CoOp."""


class KgCoOp(CoOp):
    """L = L_CE + knowledge_weight L_kg, L_kg = mean_c (1 - w_c . w_c^zs), w^zs from hand-written prompts."""

    name = "kgcoop"
    title = "Knowledge-guided Context Optimization (KgCoOp)"
    year = 2023
    config_class = KgCoOpConfig
    config: KgCoOpConfig
    frozen_features: Tensor | None
    """w^zs (C, D), computed when first needed; not saved."""

    def build(self, generator: torch.Generator) -> None:
        super().build(generator)
        self.config.check_length(self.prompts.tokens)
        self.register_buffer("frozen_features", None, persistent=False)

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        w = self.class_text_features()  # (C, D)
        terms = {
            "cross_entropy": self.cross_entropy(self.scale * self.image_features(images) @ w.mT, labels),
            "knowledge": 1 - F.cosine_similarity(w, self._knowledge(), dim=-1).mean(),
        }
        return {**terms, "total": terms["cross_entropy"] + self.config.knowledge_weight * terms["knowledge"]}

    def _knowledge(self) -> Tensor:
        if self.frozen_features is None:
            config = self.config
            templates = config.chosen_templates()
            if config.dataset and find_dataset(config.dataset) == "DescribableTextures":
                templates = (*templates[:-1], TEXTURE)
            self.frozen_features = template_features(self.backbone, self.prompt_names, templates)
        return self.frozen_features
