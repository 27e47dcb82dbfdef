"""The distance of learned class features from those of hand-written prompts, as a term of the loss: KgCoOp, TCP.

Yao, Zhang & Xu, "Visual-Language Prompt Tuning with Knowledge-guided Context Optimization", CVPR 2023,
arXiv 2303.13283, section 3. Official: htyao89/KgCoOp KgCoOp/trainers/kgcoop.py.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Method
from .options import Weight
from .templates import find_dataset, template_features
from .zero_shot import ZeroShotConfig

TEXTURE = "a photo of a {}, a type of texture."  # KgCoOp's for DescribableTextures; CoOp's is "{} texture."


@dataclass(frozen=True)
class KnowledgeConfig(ZeroShotConfig):
    """Options of the frozen prompts, and the weight of the distance from them."""

    knowledge_weight: Weight = 8.0
    """Weight of the distance between learned and frozen text features (lambda); 0 leaves it out."""


class KnowledgeGuided(Method):
    """L = L_CE + knowledge_weight L_kg, L_kg = mean_c (1 - w_c . w_c^zs), w^zs from hand-written prompts."""

    multi_label = True
    config: KnowledgeConfig
    frozen_features: Tensor | None
    """w^zs (C, D), computed when first needed; not saved."""

    def build(self, generator: torch.Generator) -> None:
        super().build(generator)
        self.register_buffer("frozen_features", None, persistent=False)

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        w = self.class_text_features()  # (C, D)
        terms = {
            "cross_entropy": self.cross_entropy(self.scaled(self.image_features(images), w), labels),
            "knowledge": 1 - F.cosine_similarity(w, self.knowledge(), dim=-1).mean(),
        }
        return {**terms, "total": terms["cross_entropy"] + self.config.knowledge_weight * terms["knowledge"]}

    def knowledge(self) -> Tensor:
        """w^zs, unit: (C, D)."""
        if self.frozen_features is None:
            config = self.config
            templates = config.chosen_templates()
            if config.dataset and find_dataset(config.dataset) == "DescribableTextures":
                templates = (*templates[:-1], TEXTURE)
            self.frozen_features = template_features(self.backbone, self.prompt_names, templates)
        return self.frozen_features
