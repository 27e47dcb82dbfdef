"""Learned text prompts: where the context stands, its first values, and the class features that it gives.

Zhou et al., "Learning to Prompt for Vision-Language Models" (CoOp), IJCV 2022, arXiv 2109.01134, section 3.2.
Official: KaiyangZhou/CoOp trainers/coop.py, `PromptLearner`. Token layout, name = the tokens of the class name:

    end     [SOS | context | name . EOT]
    middle  [SOS | first half of the context | name | second half | . EOT]
    front   [SOS | name | context | . EOT]

Differences to the official code: it pads each prompt to 77 tokens, we stop at the EOT (exact); its initial words count
as one token each, ours as many as they have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.backbone import Backbone
from ..clip.model import CLIP
from ..clip.prefix import Suffixes, name_tokens, shared_prefix_features
from ..names import readable
from .options import MethodConfig, Tokens, one_of

POSITIONS = ("end", "middle", "front")
STD = 0.02  # of the first context, as in CoOp


@dataclass(frozen=True)
class TextPromptConfig(MethodConfig):
    """Options of a learned context."""

    text_tokens: Tokens = 16
    """Context tokens learned in front of the class name, M."""
    context_init: str = ""
    """Words that the context starts from, such as "a photo of a"; their number replaces text_tokens. Empty: N(0, 0.02)
    noise."""
    class_specific: bool = False
    """Learn a context for each class instead of one for all (CoOp's CSC); it cannot take new classes, and the prefix is
    not shared, so it is slower."""
    class_position: Annotated[str, one_of(POSITIONS)] = "end"
    """Where the class name stands: end, middle or front of the context. Only "end" shares the prefix."""

    @property
    def per_class(self) -> bool:
        """A class-specific context belongs to its class."""
        return self.class_specific


@dataclass(frozen=True)
class PhraseConfig(MethodConfig):
    """Options of a context in front of the class name that starts from a phrase."""

    text_tokens: Tokens = 4
    """Context tokens learned in front of the class name, M, where context_init is empty."""
    context_init: str = "a photo of a"
    """Words that the context starts from; their number replaces text_tokens. Empty: N(0, 0.02) noise."""

    def check_length(self, tokens: int) -> None:
        """Refuse a `text_tokens` that was asked for and that the phrase, of `tokens` tokens, overrules."""
        fits = self.text_tokens in (4, tokens)
        self.require("text_tokens", fits, f"{tokens} (context_init's) or an empty context_init")


def noise(clip: CLIP, shape: Sequence[int], generator: torch.Generator) -> nn.Parameter:
    """First tokens of any shape, N(0, 0.02) as in CoOp."""
    return nn.Parameter((torch.randn(shape, generator=generator) * STD).to(clip.device))


class TextPrompts:
    """The prompts of C classes: tokenised once, then features for any context."""

    def __init__(self, backbone: Backbone, class_names: Sequence[str], config: TextPromptConfig) -> None:
        self.clip = backbone.clip
        self.config = config
        self.classes = len(class_names)
        self.words = backbone.tokenizer.encode(readable(config.context_init))
        self.tokens = len(self.words) or config.text_tokens
        self.suffixes = Suffixes.build(backbone.tokenizer, class_names, self.tokens)
        self.shared = config.class_position == "end" and not config.class_specific
        if not self.shared:
            self.ids, self.slots, self.lengths = self._lay_out(backbone, class_names)

    def initial(self, generator: torch.Generator) -> nn.Parameter:
        """First context: (M, W), or (C, M, W) where it is class-specific."""
        embedding = self.clip.token_embedding.weight
        shape = [self.classes] * self.config.class_specific + [self.tokens, embedding.shape[1]]
        if self.words:
            return nn.Parameter(embedding.detach()[self.words].float().expand(shape).clone())
        return noise(self.clip, shape, generator)

    def features(self, context: Tensor) -> Tensor:
        """Unit features of every class under a context: (M, W), or (C, M, W) where class-specific -> (C, D).

        With a common context at the end also N of them at once, (N, M, W) -> (N, C, D): several prompts (PLOT,
        ProDA), or one an image (CoCoOp).
        """
        if not self.shared:
            return F.normalize(self._trimmed(context), dim=-1)
        contexts = context if context.dim() == 3 else context.unsqueeze(0)
        features = F.normalize(shared_prefix_features(self.clip, contexts, self.suffixes), dim=-1)  # (N, C, D)
        return features if context.dim() == 3 else features[0]

    def _trimmed(self, context: Tensor) -> Tensor:
        """Whole prompts, cut at the EOT, each with the context in its slots: (C, D), not normalised."""
        if self.ids.device != self.clip.device:  # once: a copy in every step would make the processor wait
            with torch.inference_mode(False):
                ours = self.ids, self.slots, self.lengths
                self.ids, self.slots, self.lengths = (tensor.to(self.clip.device) for tensor in ours)
        embeddings = self.clip.token_embedding(self.ids).float()  # (C, T, W)
        rows = torch.arange(self.classes, device=self.clip.device).unsqueeze(1)
        embeddings = embeddings.index_put((rows, self.slots), context.expand(self.classes, -1, -1))
        return self.clip.encode_embeddings(embeddings, self.lengths)

    def _lay_out(self, backbone: Backbone, class_names: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids (C, T) padded with zeros, the places (C, M) of the context in them, and lengths (C,)."""
        tokenizer = backbone.tokenizer
        before = {"end": self.tokens, "middle": self.tokens // 2, "front": 0}[self.config.class_position]
        ids, slots = [], []
        for name in class_names:
            suffix = name_tokens(tokenizer, name)
            width = len(tokenizer.encode(readable(name)))  # CoOp's name_lens: what of the suffix moves with the name
            slot = [*range(1, 1 + before), *range(1 + before + width, 1 + width + self.tokens)]
            row = [tokenizer.sot, *[0] * before, *suffix[:width], *[0] * (self.tokens - before), *suffix[width:]]
            ids.append(row)
            slots.append(slot)
        lengths = [len(row) for row in ids]
        padded = [row + [0] * (max(lengths) - len(row)) for row in ids]
        return torch.tensor(padded), torch.tensor(slots), torch.tensor(lengths)
