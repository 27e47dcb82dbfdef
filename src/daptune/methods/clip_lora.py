"""CLIP-LoRA: low-rank matrices added to the attention of both towers.

Zanella & Ben Ayed, "Low-Rank Few-Shot Adaptation of Vision-Language Models", CVPRW 2024, arXiv 2405.18541, section 3.
Official: MaxZanella/CLIP-LoRA lora.py, loralib/. The blocks are those of `daptune.clip.lora`.

Differences to the official code: low-rank matrices are not merged into the tower for evaluation, where bf16 would
round them away; the common prefix of all classes is encoded once, in training with one dropout mask; thirds and halves
of layers work for any tower.
"""

from dataclasses import dataclass
from typing import Annotated

import torch

from ..clip.lora import MATRICES, LowRank
from ..clip.towers import TextTower, VisionTower
from .adapted import AdaptedConfig, AdaptedTowers
from .options import Count, Fits, Positive, one_of

LAYERS = {"all": (0, 6), "bottom": (0, 2), "mid": (2, 4), "up": (4, 6), "half-bottom": (0, 3), "half-up": (3, 6)}
"""Ranges of layers, in sixths of the tower; there is also top3."""
ONCE_EACH = Fits(
    lambda chosen: 0 < len(chosen) == len(set(chosen) & set(MATRICES)), f"some of {', '.join(MATRICES)}, each once"
)


@dataclass(frozen=True)
class CLIPLoRAConfig(AdaptedConfig):
    """Options of CLIP-LoRA: those of the adapted towers, and of the matrices."""

    rank: Count = 2
    """Rank of the added matrices, r."""
    alpha: Positive = 1.0
    """The added matrices are scaled by alpha / sqrt(r)."""
    dropout: Annotated[float, Fits(lambda x: 0 <= x < 1, "0 or more, and less than 1")] = 0.25
    """Dropout on the input of the added matrices in training."""
    matrices: Annotated[tuple[str, ...], ONCE_EACH] = ("q", "k", "v")
    """Adapted projections of attention: q (query), k (key), v (value), o (output)."""
    layers: Annotated[str, one_of((*LAYERS, "top3"))] = "all"
    """Adapted layers: all; bottom, mid or up (a third); half-bottom or half-up; top3."""

    def chosen(self, count: int) -> range:
        """Indices of the adapted layers in a tower of `count` layers."""
        if self.layers == "top3":
            return range(max(0, count - 3), count)
        first, last = (round(sixth * count / 6) for sixth in LAYERS[self.layers])
        return range(first, last)


class CLIPLoRA(AdaptedTowers):
    """W x becomes W x + alpha / sqrt(r) B A dropout(x) in both towers, W frozen, A and B learned."""

    name = "clip_lora"
    title = "Low-Rank Few-Shot Adaptation (CLIP-LoRA)"
    year = 2024
    config_class = CLIPLoRAConfig
    default_lr = 0.002  # the 0.01 of prompts overfits
    config: CLIPLoRAConfig

    def build(self, generator: torch.Generator) -> None:
        """A (J, n, r, W) and B (J, n, W, r) of each tower, and the texts of the classes."""
        super().build(generator)
        self.text_lora = self._low_rank("text", self.clip.text, generator)
        self.vision_lora = self._low_rank("vision", self.clip.visual, generator)

    def _low_rank(self, side: str, tower: VisionTower | TextTower, generator: torch.Generator) -> LowRank | None:
        config = self.config
        if not config.adapts(side):
            return None
        count = len(tower.transformer.blocks)
        layers = config.chosen(count)
        config.require("layers", len(layers) > 0, f"layers that a {side} tower of {count} has")
        return LowRank(
            tower.transformer, layers, config.matrices, rank=config.rank, alpha=config.alpha, dropout=config.dropout,
            generator=generator,
        )  # fmt: skip

    def adaptation(self, side: str) -> LowRank | None:
        return self.text_lora if side == "text" else self.vision_lora
