"""Methods that change the blocks of the towers: CLIP-LoRA and 2SFS.

The frozen towers run through blocks that stand in for theirs (`daptune.clip.lora`, `daptune.clip.norms`). The texts are
those of one hand-written prompt.
"""

from dataclasses import dataclass
from typing import Annotated, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.blocks import Block, Transformer
from ..clip.pooling import pool_names
from ..clip.suffixes import Suffixes
from ..clip.towers import IMAGE_ATTENTION, LEARNED_CONTEXT
from .base import Method
from .options import ONE_NAME, MethodConfig, one_of
from .templates import PLAIN, fill, template_features


class Adaptation(Protocol):
    """What is learned of a tower."""

    def blocks(self, tower: Transformer) -> list[Block]:
        """The blocks that the tower runs through."""


@dataclass(frozen=True)
class AdaptedConfig(MethodConfig):
    """Which towers are adapted, and the prompt of the classes."""

    encoder: Annotated[str, one_of(("both", "text", "vision"))] = "both"
    """Adapted towers: both, text or vision."""
    template: Annotated[str, ONE_NAME] = PLAIN
    """Prompt, with one {} for the class name."""

    def adapts(self, side: str) -> bool:
        return self.encoder in ("both", side)


class AdaptedTowers(Method):
    """Features of towers whose blocks have something learned in them."""

    needs = frozenset({IMAGE_ATTENTION, LEARNED_CONTEXT})
    config: AdaptedConfig
    prefix: Tensor
    frozen_features: Tensor | None
    """Text features (C, D) of a frozen text tower; not saved."""

    @classmethod
    def needs_with(cls, config: MethodConfig) -> frozenset[str]:
        spared = {"text": IMAGE_ATTENTION, "vision": LEARNED_CONTEXT}
        return cls.needs - {spared.get(cast(AdaptedConfig, config).encoder)}

    def build(self, generator: torch.Generator) -> None:
        """The texts of the classes."""
        names, pool = pool_names(self.prompt_names)
        texts = fill(self.config.template, names)
        prefix, self.suffixes = Suffixes.of_texts(self.backbone.tokenizer, texts, pool)
        self.register_buffer("prefix", prefix.to(self.clip.device), persistent=False)
        self.register_buffer("frozen_features", None, persistent=False)

    def adaptation(self, side: str) -> Adaptation | None:
        """What is learned of the "text" or the "vision" tower; None: nothing."""
        raise NotImplementedError

    def text_features(self) -> Tensor:
        if (learned := self.adaptation("text")) is not None:
            context = self.clip.text.embed(self.prefix).unsqueeze(0)  # (1, M, W)
            through = learned.blocks(self.clip.text.transformer)
            return F.normalize(self.clip.text.features(context, self.suffixes, through=through)[0], dim=-1)
        if self.frozen_features is None:
            self.frozen_features = template_features(self.backbone, self.prompt_names, [self.config.template])
        return self.frozen_features

    def encode_images(self, images: Tensor) -> Tensor:
        learned = self.adaptation("vision")
        through = None if learned is None else learned.blocks(self.clip.visual.transformer)
        return self.clip.encode_image(images, through=through)
