"""TCP: text prompts with tokens of each class in the upper blocks, made from its frozen text feature.

Yao, Zhang & Xu, "TCP: Textual-based Class-aware Prompt tuning for Visual-Language Model", CVPR 2024, arXiv 2311.18231,
section 3. Official: htyao89/Textual-based_Class-aware_prompt_tuning trainers/tcp.py, trainers/clip_text/model.py.

    block 1       [SOS | v_1 .. v_M | name . EOT]        v learned, shared by all classes
    block J       the same, with the outputs at the positions of v replaced by p_1 .. p_M of the class; they flow on
    p = W_2 quick_gelu(W_1 w^zs + b_1) + b_2             W, b learned; w^zs: text feature by hand-written prompts

Differences to the official code: J is its ninth of twelve blocks, in other towers the same share; widths are the
backbone's; its mixing weight of p and v's outputs, which is 1, is left out, as are contexts of each class, which fail
there; text features are computed once for all test images.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.suffixes import Suffixes
from ..clip.towers import JOINING_TEXT_TOKENS, LEARNED_CONTEXT
from .cocoop import first_linear
from .knowledge import KnowledgeConfig, KnowledgeGuided
from .options import ONE_NAME, Fits
from .text_prompts import PhraseConfig, noise

FIRST = 8 / 12  # share of the blocks below the class's tokens
REDUCTION, FEWEST = 4, 8  # hidden units of the network: D / 4, at least 8
BEHIND_THE_FIRST = Fits(lambda at: at == 0 or at > 1, "0 (the paper's share of the tower) or a block from 2")


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1.702 * x).sigmoid()


@dataclass(frozen=True)
class TCPConfig(KnowledgeConfig, PhraseConfig):
    """Options of TCP: those of the context and of the frozen prompts, and where the class's tokens stand."""

    context_init: str = ""
    """Initial words of the context; their number of tokens replaces text_tokens. Empty: N(0, 0.02) noise."""
    phrase: Annotated[str, ONE_NAME] = "{}."
    """What follows the context, with one {} for the class name."""
    first_block: Annotated[int, BEHIND_THE_FIRST] = 0
    """Block of the text tower, from 1, whose input has the class's tokens; 0: the paper's 9th of 12, and the same share
    of another tower."""


class TCP(KnowledgeGuided):
    """w_c = text([v_1 .. v_M, class c, "."]), from block J on with the class's p = network(w_c^zs) in v's places."""

    name = "tcp"
    title = "Textual-based Class-aware Prompt tuning (TCP)"
    year = 2024
    config_class = TCPConfig
    sees = "fixed features"
    needs = frozenset({LEARNED_CONTEXT, JOINING_TEXT_TOKENS})
    config: TCPConfig
    text_prompt: nn.Parameter

    def build(self, generator: torch.Generator) -> None:
        """v (M, W) and the network D -> D / 4 -> M W, initialised as torch's linear layers."""
        super().build(generator)
        sizes, tokenizer, config = self.clip.config, self.backbone.tokenizer, self.config
        words = tokenizer.encode(config.context_init)
        self.tokens = len(words) or config.text_tokens
        config.check_length(self.tokens)
        self.block = config.block_of("first_block", sizes.text_layers, FIRST)
        self.suffixes = Suffixes.build(tokenizer, self.prompt_names, self.tokens, phrase=config.phrase)
        context = noise(self.clip, (self.tokens, sizes.text_width), generator)
        self.text_prompt = nn.Parameter(self.clip.text.embed(words)) if words else context
        hidden = max(sizes.embed_dim // REDUCTION, FEWEST)
        first = first_linear(sizes.embed_dim, hidden, generator)
        second = first_linear(hidden, self.tokens * sizes.text_width, generator)
        layers = OrderedDict(linear1=first, gelu=QuickGELU(), linear2=second)
        self.class_net = nn.Sequential(layers).to(self.clip.device)

    def class_tokens(self) -> Tensor:
        """p: (C, M, W)."""
        made: Tensor = self.class_net(self.knowledge())
        return made.unflatten(-1, (self.tokens, -1))

    def text_features(self) -> Tensor:
        text = self.clip.text
        below = text.below(self.text_prompt, self.suffixes, self.block)
        return F.normalize(text.above(below, self.suffixes, own=self.class_tokens()), dim=-1)
