"""KgCoOp: CoOp with class features kept close to those of zero-shot CLIP.

Yao, Zhang & Xu, "Visual-Language Prompt Tuning with Knowledge-guided Context Optimization", CVPR 2023,
arXiv 2303.13283, section 3. Official: htyao89/KgCoOp KgCoOp/trainers/kgcoop.py. The loss: `daptune.methods.knowledge`.

Differences to the official code: the weight is 8, as in its scripts (the default of its code is 1); frozen features
may average several templates; its unused tensors (meta_net, bias_vectors, adapter) and its failing mixed-precision
branch are left out.
"""

from dataclasses import dataclass

import torch

from .coop import CoOp, CoOpConfig
from .knowledge import KnowledgeConfig, KnowledgeGuided
from .options import Weight
from .text_prompts import PhraseConfig


@dataclass(frozen=True)
class KgCoOpConfig(KnowledgeConfig, PhraseConfig, CoOpConfig):
    """Options of KgCoOp: those of CoOp's context and of the frozen prompts, and the weight of their distance."""

    knowledge_weight: Weight = 8.0
    """Weight of the distance between learned and frozen text features (lambda); 0 is CoOp."""


class KgCoOp(KnowledgeGuided, CoOp):
    """L = L_CE + knowledge_weight L_kg, L_kg = mean_c (1 - w_c . w_c^zs), w^zs from hand-written prompts."""

    name = "kgcoop"
    title = "Knowledge-guided Context Optimization (KgCoOp)"
    year = 2023
    config_class = KgCoOpConfig
    config: KgCoOpConfig

    def build(self, generator: torch.Generator) -> None:
        super().build(generator)
        self.config.check_length(self.prompts.tokens)
