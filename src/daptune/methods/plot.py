"""PLOT: learn several contexts, and match them with the patches of an image by optimal transport.

Chen, Yao, Song, Li, Rao & Zhang, "PLOT: Prompt Learning with Optimal Transport for Vision-Language Models", ICLR 2023,
arXiv 2210.01253, section 3. Official: CHENGY12/PLOT plot-coop/trainers/plot.py. The transport and its differences:
`daptune.methods.transport`.

Differences to the official code: it is for ResNets, whose attention pool is read at every place; a vision transformer
has no such pool, so the patches of the last block take the class token's norm and projection. The authors say that
these are not discriminative enough, and made PLOT++ (`daptune.methods.plot_pp`) of that; by default the class token
therefore has its say (`global_weight`), as in the official code on ImageNet alone. Its class-specific contexts, first
words, and places of the class name other than "end" fail with more than one context; ours has none of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..clip.prefix import Suffixes, shared_prefix_features
from .options import Count, Weight
from .text_prompts import noise
from .transport import TransportConfig, TransportMethod


@dataclass(frozen=True)
class PLOTConfig(TransportConfig):
    """Options of PLOT: those of the transport, and how many contexts of how many tokens."""

    prompts: Count = 4
    """Contexts learned, N."""
    text_tokens: Count = 16
    """Tokens of a context in front of the class name, M."""
    global_weight: Weight = 1.0
    """Weight of the cosine between the class token and the mean of the contexts' class features, added to the
    transport's score; the official code has 1 on ImageNet and 0 elsewhere."""


class PLOT(TransportMethod):
    """p(y = c | x) = softmax_c(scale (sum_ng T_ng z_g . w_nc + global_weight z . w_c)), w_nc = text([v_n, class c])."""

    name = "plot"
    title = "Prompt Learning with Optimal Transport (PLOT)"
    year = 2023
    config_class = PLOTConfig
    sees = "fixed features"
    config: PLOTConfig

    def build(self, generator: torch.Generator) -> None:
        """The contexts v: (N, M, W), N(0, 0.02)."""
        count, tokens = self.config.prompts, self.config.text_tokens
        self.suffixes = Suffixes.build(self.backbone.tokenizer, self.class_names, tokens)
        self.text_prompt = noise(self.clip, (count, tokens, self.clip.config.text_width), generator)

    @property
    def encoded_size(self) -> int:
        """How many numbers `encode` makes of an image: (1 + G) D."""
        return (1 + self.clip.config.patches) * self.clip.config.embed_dim

    def encode_images(self, images: Tensor) -> Tensor:
        """Features of the class token and the patches, not normalised: (B, 3, R, R) -> (B, 1 + G, D)."""
        return self.clip.encode_image(images, patches=True)

    def image_sets(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, G, D) and class token (B, D)."""
        tokens = self.encode(images)
        return tokens[:, 1:], tokens[:, 0]

    def logit_weights(self) -> Tensor:
        """Class features under each context, not normalised: (N, C, D)."""
        return shared_prefix_features(self.clip, self.text_prompt, self.suffixes)

    def logits(self, images: Tensor) -> Tensor:
        """exp(logit_scale) times transport score and weighted cosine: (B, 3, R, R) -> (B, C)."""
        return self.mixed_logits(images, self.config.global_weight)
