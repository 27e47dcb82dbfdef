"""KgCoOp: CoOp that stays near what CLIP knows of the classes.

Yao, Zhang & Xu, "Visual-Language Prompt Tuning with Knowledge-guided Context Optimization", CVPR 2023,
arXiv 2303.13283, section 3. Official: htyao89/KgCoOp KgCoOp/trainers/kgcoop.py.

Differences to the official code: the weight is 8, as in its scripts (its code's default is 1); frozen features may be
the average of several templates; the tensors that it makes and never uses (meta_net, bias_vectors, adapter) are left
out; its mixed-precision branch, which fails, is none here.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .coop import CoOp, CoOpConfig
from .templates import find_dataset, template_features
from .zero_shot import ZeroShotConfig

TEXTURE = "a photo of a {}, a type of texture."  # KgCoOp's own for DescribableTextures; CoOp's is "{} texture."


@dataclass(frozen=True)
class KgCoOpConfig(ZeroShotConfig, CoOpConfig):
    """Options of KgCoOp: those of CoOp's context, of the frozen prompts, and how strongly these hold it."""

    text_tokens: int = 4
    """Context tokens learned in front of the class name, M, where context_init is empty."""
    context_init: str = "a photo of a"
    """Words that the context starts from; their number replaces text_tokens. Empty: N(0, 0.02) noise."""
    knowledge_weight: float = 8.0
    """Weight of the distance between learned and frozen text features (lambda); 0 is CoOp."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("knowledge_weight", self.knowledge_weight >= 0, "0 or more")


class KgCoOp(CoOp):
    """L = L_CE + knowledge_weight L_kg, L_kg = mean_c (1 - w_c . w_c^zs), w^zs from hand-written prompts."""

    name = "kgcoop"
    title = "Knowledge-guided Context Optimization (KgCoOp)"
    year = 2023
    config_class = KgCoOpConfig
    config: KgCoOpConfig
    frozen_features: Tensor | None
    """w^zs (C, D), computed when first needed; not part of what is saved."""

    def build(self, generator: torch.Generator) -> None:
        """The context (M, W), as CoOp's, and room for the frozen features."""
        super().build(generator)
        fits = self.config.text_tokens in (4, self.prompts.tokens)
        self.config.require("text_tokens", fits, f"{self.prompts.tokens} (context_init's) or an empty context_init")
        self.register_buffer("frozen_features", None, persistent=False)

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, the distance from what CLIP knows, and their weighted total, all scalars."""
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
            self.frozen_features = template_features(self.backbone, self.class_names, templates)
        return self.frozen_features
