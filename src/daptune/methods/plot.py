"""PLOT: learn several contexts and match them with the patches of an image by optimal transport.

Chen, Yao, Song, Li, Rao & Zhang, "PLOT: Prompt Learning with Optimal Transport for Vision-Language Models", ICLR 2023,
arXiv 2210.01253, section 3. Official: CHENGY12/PLOT plot-coop/trainers/plot.py. The transport and its differences:
`daptune.methods.transport`.

On a residual network each place of the last map queries the attention pool, as in the official code. A vision
transformer has no such pool: the patches of the last block use the norm and projection of the class token. The authors
find these not discriminative enough and propose PLOT++ (`daptune.methods.plot_pp`); here the class token is added by
default (`global_weight`), as in the official code on ImageNet. Its class-specific contexts, initial words and positions
of the class name other than "end" fail with more than one context; they are left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..clip.suffixes import Suffixes
from ..clip.towers import LEARNED_CONTEXT, PATCH_FEATURES
from .options import Count, Weight
from .text_prompts import noise
from .transport import TransportConfig, TransportMethod


@dataclass(frozen=True)
class PLOTConfig(TransportConfig):
    """Options of PLOT: those of the transport, and the number and length of the contexts."""

    prompts: Count = 4
    """Number of learned contexts, N."""
    text_tokens: Count = 16
    """Tokens of a context before the class name, M."""
    global_weight: Weight = 1.0
    """Weight of the cosine between the class token and the mean class features, added to the transport score; in the
    official code 1 on ImageNet and 0 elsewhere."""


class PLOT(TransportMethod):
    """p(y = c | x) = softmax_c(scale (sum_ng T_ng z_g . w_nc + global_weight z . w_c)), w_nc = text([v_n, class c])."""

    name = "plot"
    title = "Prompt Learning with Optimal Transport (PLOT)"
    year = 2023
    config_class = PLOTConfig
    sees = "fixed features"
    needs = frozenset({LEARNED_CONTEXT, PATCH_FEATURES})
    config: PLOTConfig

    def build(self, generator: torch.Generator) -> None:
        """The contexts v: (N, M, W), N(0, 0.02)."""
        count, tokens = self.config.prompts, self.config.text_tokens
        self.suffixes = Suffixes.build(self.backbone.tokenizer, self.prompt_names, tokens)
        self.text_prompt = noise(self.clip, (count, tokens, self.clip.config.text_width), generator)

    @property
    def encoded_size(self) -> int:
        return (1 + self.clip.config.patches) * self.clip.config.embed_dim

    def encode_images(self, images: Tensor) -> Tensor:
        """Class token and patches, not normalised: (B, 3, R, R) -> (B, 1 + G, D)."""
        return self.clip.encode_image(images, patches=True)

    def image_sets(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, G, D) and class token (B, D)."""
        tokens = self.encode(images)
        return tokens[:, 1:], tokens[:, 0]

    def logit_weights(self) -> Tensor:
        return self.clip.text.features(self.text_prompt, self.suffixes)

    def logits(self, images: Tensor) -> Tensor:
        return self.mixed_logits(images, self.config.global_weight)
