"""PLOT++: PLOT for vision transformers, with sets of visual tokens that make the features to match.

Chen, Yao, Song, Li, Rao & Zhang, "PLOT: Prompt Learning with Optimal Transport for Vision-Language Models", ICLR 2023,
arXiv 2210.01253, whose repository extends it. Official: CHENGY12/PLOT plot-pp/trainers/plotpp.py, plot-pp/clip/model.py
(VisionTransformer). The transport and its differences: `daptune.methods.transport`.

Two stages: first the visual tokens alone learn, with the cosine of the mean features added to the score, then visual
tokens and contexts by the score alone. Ours are one fit (`visual_share`), which goes on bit for bit where it was
stopped. Officially they are two runs: stage 1 has seed 1 alone and starts stage 2 of every seed, so that seeds 2 and 3
have also learned from the images of seed 1; each has the whole learning rate and its own optimizer.

Differences to the official code: it takes the words of the first phrase as the length of all contexts (what more a
phrase has stays frozen behind them, for fewer the end of the text enters the context and the class name loses its first
tokens: `official_phrases`), ours the shortest phrase; without phrases it fails; it fixes the width 768.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from ..clip.prefix import Suffixes, name_tokens, shared_prefix_features
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
    """Words that each context starts from, in front of the class name; as many contexts as phrases. The shortest one's
    tokens are learned in each, what longer ones have more stays frozen behind them."""
    official_phrases: bool = False
    """Learn as many tokens as the first phrase has words, as the official code does: a shorter phrase then takes the
    end of the text into its context, and class names lose their first tokens behind it."""
    vision_sets: Count = 4
    """Sets of visual tokens, V: an image is encoded once with each."""
    vision_tokens: Tokens = 2
    """Visual tokens of a set, P, behind the patches, in front of ln_pre."""
    visual_share: Share = 0.5
    """Share of the epochs, rounded up, that the visual tokens learn alone; 0: both learn from the start."""


class PLOTPP(TransportMethod):
    """p(y = c | x) = softmax_c(scale sum_ng T_ng z_g . w_nc), z_g = image([CLS, patches, u_g]), w_nc = text([v_n, c]).

    In the first stage z . w_c of the mean features is added, and v does not learn.
    """

    name = "plot_pp"
    title = "PLOT++"
    year = 2023
    config_class = PLOTPPConfig
    config: PLOTPPConfig

    def build(self, generator: torch.Generator) -> None:
        """The contexts v (N, M, W_text) from the phrases, and the visual tokens u (V, P, W_vision), N(0, 0.02)."""
        config, tokenizer = self.config, self.backbone.tokenizer
        phrases = [tokenizer.encode(readable(phrase)) for phrase in config.phrases]
        lengths = [len(words) for words in phrases]
        tokens = len(readable(config.phrases[0]).split()) if config.official_phrases else min(lengths)
        config.require("phrases", tokens <= min(lengths) + 2, "none to be more than 2 words shorter than the first")
        self.groups: list[tuple[list[int], str, Suffixes]] = []  # contexts of one length, words behind them, names
        for length in sorted(set(lengths)):
            members = [n for n, words in enumerate(phrases) if len(words) == length]
            frozen = torch.tensor([phrases[n][tokens:] for n in members], dtype=torch.int64)
            self.register_buffer(f"words_{length}", frozen.to(self.clip.device), persistent=False)
            self.groups.append((members, f"words_{length}", self._names(max(lengths), max(0, tokens - length))))
        padded = [[*words, tokenizer.eot, *[0] * tokens][:tokens] for words in phrases]
        self.text_prompt = nn.Parameter(self.clip.token_embedding.weight.detach()[torch.tensor(padded)].float())
        shape = (config.vision_sets, config.vision_tokens, self.clip.config.vision_width)
        self.vision_prompt = noise(self.clip, shape, generator)
        self.visual_stage = torch.zeros((), dtype=torch.bool)  # a fit begins in it; what was learned is past it

    def _names(self, tokens: int, cut: int) -> Suffixes:
        """The class names behind `tokens` words, without their first `cut` tokens."""
        tokenizer = self.backbone.tokenizer
        names = Suffixes.build(tokenizer, self.class_names, tokens)
        if not cut:
            return names
        return Suffixes.pack(tokenizer.sot, [name_tokens(tokenizer, name)[cut:] for name in self.class_names])

    def image_sets(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class tokens under each set of visual tokens (B, V, D), and their mean (B, D)."""
        parts = [self.clip.encode_image(images, tokens[None], before_ln_pre=True) for tokens in self.vision_prompt]
        sets = torch.stack(parts, 1)
        return sets, sets.mean(1)

    def logit_weights(self) -> Tensor:
        """Class features under each context, not normalised: (N, C, D); without gradient in the first stage."""
        learned = self.text_prompt.detach() if self.visual_stage else self.text_prompt
        found: dict[int, Tensor] = {}
        rows = learned.unbind()  # an index made of numbers would have to be copied to a GPU
        for members, frozen, names in self.groups:
            words = self.clip.token_embedding(getattr(self, frozen)).float()
            context = torch.cat([torch.stack([rows[n] for n in members]), words], 1)
            found |= zip(members, shared_prefix_features(self.clip, context, names), strict=True)
        return torch.stack([found[n] for n in range(len(learned))])

    def logits(self, images: Tensor) -> Tensor:
        """exp(logit_scale) times the transport score: (B, 3, R, R) -> (B, C)."""
        return self.mixed_logits(images, 0.0)

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, in the first stage with the cosine of the mean features: images (B, 3, R, R), labels (B,)."""
        loss = self.cross_entropy(self.mixed_logits(images, float(self.visual_stage)), labels)
        return {"cross_entropy": loss, "total": loss}

    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        """The first stage begins."""
        self.visual_stage.fill_(self.config.visual_share > 0)

    def after_epoch(self, epoch: int, epochs: int) -> None:
        """The first stage ends when its share of the epochs is over."""
        if epoch >= round(self.config.visual_share * epochs, 6):  # 0.7 * 10 is more than 7
            self.visual_stage.fill_(False)

    def running_state(self) -> dict[str, Tensor]:
        """The stage, which is part of the run and not of what is learned."""
        return {"visual_stage": self.visual_stage}
