"""Learned text prompts: position of the context, initial values, and class features.

Zhou et al., "Learning to Prompt for Vision-Language Models" (CoOp), IJCV 2022, arXiv 2109.01134, section 3.2.
Official: KaiyangZhou/CoOp trainers/coop.py, `PromptLearner`. Token layout, name = the tokens of the class name:

    end     [SOS | context | name . EOT]
    middle  [SOS | first half of the context | name | second half | . EOT]
    front   [SOS | name | context | . EOT]

Differences to the official code: it pads each prompt to 77 tokens, here prompts end at the EOT (exact); it counts
initial words as one token each, here as their number of tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.backbone import Backbone
from ..clip.model import CLIP
from ..clip.pooling import Names, pool_names
from ..clip.suffixes import Suffixes, name_tokens
from ..names import readable
from .options import MethodConfig, Tokens, one_of

POSITIONS = ("end", "middle", "front")
STD = 0.02  # of the initial context, as in CoOp


@dataclass(frozen=True)
class TextPromptConfig(MethodConfig):
    text_tokens: Tokens = 16
    """Context tokens, M."""
    context_init: str = ""
    """Initial words, such as "a photo of a"; their number of tokens replaces text_tokens. Empty: N(0, 0.02) noise."""
    class_specific: bool = False
    """Learn one context per class (CoOp's CSC); slower, since no prefix is shared, and does not accept new classes."""
    class_position: Annotated[str, one_of(POSITIONS)] = "end"
    """Position of the class name: end, middle or front of the context. Only "end" shares the prefix."""

    @property
    def per_class(self) -> bool:
        return self.class_specific


@dataclass(frozen=True)
class PhraseConfig(MethodConfig):
    """Options of a context before the class name that starts from a phrase."""

    text_tokens: Tokens = 4
    """Context tokens before the class name, M, if context_init is empty."""
    context_init: str = "a photo of a"
    """Initial words; their number of tokens replaces text_tokens. Empty: N(0, 0.02) noise."""

    def check_length(self, tokens: int) -> None:
        """Refuse an explicit `text_tokens` that differs from the phrase's number of `tokens`."""
        fits = self.text_tokens in (4, tokens)
        self.require("text_tokens", fits, f"{tokens} (context_init's) or an empty context_init")


def noise(clip: CLIP, shape: Sequence[int], generator: torch.Generator) -> nn.Parameter:
    """Initial tokens, N(0, 0.02) as in CoOp."""
    return nn.Parameter((torch.randn(shape, generator=generator) * STD).to(clip.device))


class TextPrompts:
    """The prompts of C classes, tokenised once; `features` encodes them with any context.

    A class may have several names: its context is joined with each, and their unit features are averaged.
    """

    def __init__(self, backbone: Backbone, class_names: Names, config: TextPromptConfig) -> None:
        self.clip = backbone.clip
        self.config = config
        self.classes = len(class_names)
        self.words = backbone.tokenizer.encode(readable(config.context_init))
        self.tokens = len(self.words) or config.text_tokens
        self.suffixes = Suffixes.build(backbone.tokenizer, class_names, self.tokens)
        self.shared = config.class_position == "end" and not config.class_specific
        if not self.shared:
            names, self.pool = pool_names(class_names)
            self.ids, self.slots, self.lengths = self._lay_out(backbone, names)

    def initial(self, generator: torch.Generator) -> nn.Parameter:
        """Initial context: (M, W), or (C, M, W) if class-specific."""
        shape = [self.classes] * self.config.class_specific + [self.tokens, self.clip.config.text_width]
        if self.words:
            return nn.Parameter(self.clip.text.embed(self.words).expand(shape).clone())
        return noise(self.clip, shape, generator)

    def features(self, context: Tensor) -> Tensor:
        """Unit class features for a context (M, W), or (C, M, W) if class-specific: (C, D).

        N shared contexts at the end are encoded at once, (N, M, W) -> (N, C, D): several prompts (PLOT, ProDA), or one
        per image (CoCoOp).
        """
        if not self.shared:
            features = self._trimmed(context)
            return F.normalize(features if self.pool is None else self.pool(features), dim=-1)
        contexts = context if context.dim() == 3 else context.unsqueeze(0)
        features = F.normalize(self.clip.text.features(contexts, self.suffixes), dim=-1)  # (N, C, D)
        return features if context.dim() == 3 else features[0]

    def _trimmed(self, context: Tensor) -> Tensor:
        """Features of whole prompts, one for each of K names, cut at the EOT: (K, D), not normalised."""
        if self.ids.device != self.clip.device:  # once: a copy in every step would block the CPU
            with torch.inference_mode(False):
                ours = self.ids, self.slots, self.lengths
                self.ids, self.slots, self.lengths = (tensor.to(self.clip.device) for tensor in ours)
            self.pool = self.pool and self.pool.to(self.clip.device)
        embeddings = self.clip.text.embed(self.ids)  # (K, T, W)
        rows = torch.arange(len(self.ids), device=self.clip.device).unsqueeze(1)
        if self.pool is not None and context.dim() == 3:  # class-specific
            context = context.index_select(0, self.pool.owners)
        embeddings = embeddings.index_put((rows, self.slots), context.expand(len(self.ids), -1, -1))
        return self.clip.text.encode_embeddings(embeddings, self.lengths)

    def _lay_out(self, backbone: Backbone, names: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids (K, T) padded with zeros, positions (K, M) of the context, and lengths (K,)."""
        tokenizer = backbone.tokenizer
        before = {"end": self.tokens, "middle": self.tokens // 2, "front": 0}[self.config.class_position]
        ids, slots, start = [], [], len(tokenizer.start)
        for name in names:
            suffix = name_tokens(tokenizer, name)
            width = len(tokenizer.encode(readable(name)))  # CoOp's name_lens
            slot = [*range(before), *range(before + width, width + self.tokens)]
            row = [*tokenizer.start, *[0] * before, *suffix[:width], *[0] * (self.tokens - before), *suffix[width:]]
            ids.append(row)
            slots.append([start + place for place in slot])
        lengths = [len(row) for row in ids]
        places = self.clip.text.places(max(lengths))
        padded = [row + [tokenizer.pad] * (places - len(row)) for row in ids]
        return torch.tensor(padded), torch.tensor(slots), torch.tensor(lengths)
