"""PLOT++: PLOT for vision transformers, with one image feature per set of visual tokens.

Chen, Yao, Song, Li, Rao & Zhang, "PLOT: Prompt Learning with Optimal Transport for Vision-Language Models", ICLR 2023,
arXiv 2210.01253, whose repository extends it. Official: CHENGY12/PLOT plot-pp/trainers/plotpp.py, plot-pp/clip/model.py
(VisionTransformer). The transport and its differences: `daptune.methods.transport`.

The first of two stages trains only the visual tokens, with the cosine of the mean features added to the score; the
second trains visual tokens and contexts with the score alone. Here both are one resumable fit (`visual_share`).
Officially they are two runs, each with the whole learning rate, and stage 1 of seed 1 initialises stage 2 of every
seed, so that seeds 2 and 3 also learn from the images of seed 1.

Differences to the official code: the length of all contexts is that of the shortest phrase, officially of the first
(the rest of a longer one stays frozen after it; with a shorter one, the end of the text enters the context and the
class name loses its first tokens: `official_phrases`). It fails without phrases and fixes the width 768.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from ..clip.suffixes import Suffixes
from ..clip.towers import LEARNED_CONTEXT, VISUAL_TOKENS
from ..names import readable
from .base import SupportSet
from .options import Count, Fits, Share, Tokens
from .text_prompts import noise
from .transport import TransportConfig, TransportMethod

PHRASES = ("a photo of a", "this is a photo", "this is picture of", "one picture of a")
WORDS = Fits(lambda ps: ps and all(readable(p).strip() for p in ps), "one phrase or more, none of them empty")


@dataclass(frozen=True)
class PLOTPPConfig(TransportConfig):
    """Options of PLOT++: those of the transport, of both prompts, and of the two stages."""

    phrases: Annotated[tuple[str, ...], WORDS] = PHRASES
    """Initial words of the contexts, before the class name; one context per phrase. As many tokens are learned as the
    shortest phrase has; the rest of longer phrases stays frozen after them."""
    official_phrases: bool = False
    """Learn as many tokens as the first phrase has words, as in the official code: with a shorter phrase, the end of
    the text enters the context and class names lose their first tokens."""
    vision_sets: Count = 4
    """Sets of visual tokens, V; an image is encoded once with each."""
    vision_tokens: Tokens = 2
    """Visual tokens per set, P, after the patches, before ln_pre."""
    visual_share: Share = 0.5
    """Share of the epochs, rounded up, that train only the visual tokens; 0: both from the start."""


class PLOTPP(TransportMethod):
    """p(y = c | x) = softmax_c(scale sum_ng T_ng z_g . w_nc), z_g = image([CLS, patches, u_g]), w_nc = text([v_n, c]).

    In the first stage z . w_c of the mean features is added, and v is not trained.
    """

    name = "plot_pp"
    title = "PLOT++"
    year = 2023
    config_class = PLOTPPConfig
    needs = frozenset({LEARNED_CONTEXT, VISUAL_TOKENS})
    config: PLOTPPConfig

    def build(self, generator: torch.Generator) -> None:
        """The contexts v (N, M, W_text) from the phrases, and the visual tokens u (V, P, W_vision), N(0, 0.02)."""
        config, tokenizer = self.config, self.backbone.tokenizer
        phrases = [tokenizer.encode(readable(phrase)) for phrase in config.phrases]
        lengths = [len(words) for words in phrases]
        tokens = len(readable(config.phrases[0]).split()) if config.official_phrases else min(lengths)
        config.require("phrases", tokens <= min(lengths) + 2, "none to be more than 2 words shorter than the first")
        self.groups: list[tuple[list[int], str, Suffixes]] = []  # contexts of one length, words after them, names
        for length in sorted(set(lengths)):
            members = [n for n, words in enumerate(phrases) if len(words) == length]
            frozen = torch.tensor([phrases[n][tokens:] for n in members], dtype=torch.int64)
            self.register_buffer(f"words_{length}", frozen.to(self.clip.device), persistent=False)
            cut = max(0, tokens - length)  # first tokens of the class names that are lost
            names = Suffixes.build(tokenizer, self.prompt_names, max(lengths), cut=cut)
            self.groups.append((members, f"words_{length}", names))
        padded = [[*words, tokenizer.eot, *[tokenizer.pad] * tokens][:tokens] for words in phrases]
        self.text_prompt = nn.Parameter(self.clip.text.embed(padded))
        shape = (config.vision_sets, config.vision_tokens, self.clip.config.vision_width)
        self.vision_prompt = noise(self.clip, shape, generator)
        self.visual_stage = torch.zeros((), dtype=torch.bool)  # true only in the first stage of a fit

    def image_sets(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class tokens for each set of visual tokens (B, V, D), and their mean (B, D)."""
        parts = [self.clip.encode_image(images, tokens[None], before_ln_pre=True) for tokens in self.vision_prompt]
        sets = torch.stack(parts, 1)
        return sets, sets.mean(1)

    def logit_weights(self) -> Tensor:
        """Class features for each context, not normalised: (N, C, D); without gradient in the first stage."""
        learned = self.text_prompt.detach() if self.visual_stage else self.text_prompt
        found: dict[int, Tensor] = {}
        rows = learned.unbind()  # an index tensor would have to be copied to the GPU
        for members, frozen, names in self.groups:
            words = self.clip.text.embed(getattr(self, frozen))
            context = torch.cat([torch.stack([rows[n] for n in members]), words], 1)
            found |= zip(members, self.clip.text.features(context, names), strict=True)
        return torch.stack([found[n] for n in range(len(learned))])

    def logits(self, images: Tensor) -> Tensor:
        return self.mixed_logits(images, 0.0)

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        loss = self.cross_entropy(self.mixed_logits(images, float(self.visual_stage)), labels)
        return {"cross_entropy": loss, "total": loss}

    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        self.visual_stage.fill_(self.config.visual_share > 0)

    def after_epoch(self, epoch: int, epochs: int) -> None:
        if epoch >= round(self.config.visual_share * epochs, 6):  # 0.7 * 10 is more than 7
            self.visual_stage.fill_(False)

    def running_state(self) -> dict[str, Tensor]:
        return {"visual_stage": self.visual_stage}
