"""CoCoOp: a context shifted by each image, so that the class features depend on the image.

Zhou, Yang, Loy & Liu, "Conditional Prompt Learning for Vision-Language Models", CVPR 2022, arXiv 2203.05557,
section 3.2. Official: KaiyangZhou/CoOp trainers/cocoop.py.

Differences to the official code: it encodes C whole prompts per image; here the prefix is encoded once per image and
the class names after all prefixes together (`daptune.clip.prefix`), so that batches above 1 fit; the meta-net has at
least 8 hidden units, which matters only below D = 128.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..clip.towers import LEARNED_CONTEXT
from ..errors import MethodError
from .base import Method
from .text_prompts import PhraseConfig, TextPromptConfig, TextPrompts

REDUCTION, FEWEST = 16, 8  # hidden units of the meta-net: D / 16, at least 8


@dataclass(frozen=True)
class CoCoOpConfig(PhraseConfig):
    """Options of CoCoOp: those of its context, which precedes the class name and is shared by all classes."""


class CoCoOp(Method):
    """w_c(z) = text([v_1 + h(z) .. v_M + h(z), class c, "."]), h(z) = W_2 relu(W_1 z + b_1) + b_2; v, W, b learned."""

    name = "cocoop"
    title = "Conditional Context Optimization (CoCoOp)"
    year = 2022
    config_class = CoCoOpConfig
    sees = "fixed features"
    needs = frozenset({LEARNED_CONTEXT})
    shares_image_tower = False  # its text tower runs for each image and would delay the other methods
    config: CoCoOpConfig
    text_prompt: nn.Parameter

    def build(self, generator: torch.Generator) -> None:
        """The context v (M, W) and the meta-net h: D -> D / 16 -> W, initialised as torch's linear layers."""
        options = TextPromptConfig(text_tokens=self.config.text_tokens, context_init=self.config.context_init)
        self.prompts = TextPrompts(self.backbone, self.prompt_names, options)
        self.config.check_length(self.prompts.tokens)
        self.text_prompt = self.prompts.initial(generator)
        features, width = self.clip.config.embed_dim, self.clip.config.text_width
        hidden = max(features // REDUCTION, FEWEST)
        first, second = first_linear(features, hidden, generator), first_linear(hidden, width, generator)
        layers = OrderedDict(linear1=first, relu=nn.ReLU(), linear2=second)
        self.meta_net = nn.Sequential(layers).to(self.clip.device)

    def class_features(self, z: Tensor) -> Tensor:
        """Unit class features for each image: unit image features (B, D) -> (B, C, D)."""
        shift = self.meta_net(z).unsqueeze(1)  # (B, 1, W): the same for all tokens of a context
        return self.prompts.features(self.text_prompt + shift)

    def logits(self, images: Tensor) -> Tensor:
        """exp(logit_scale) z_b . w_c(z_b): (B, 3, R, R) -> (B, C)."""
        z = self.image_features(images)
        return self.scale * torch.einsum("bd,bcd->bc", z, self.class_features(z))

    def text_features(self) -> Tensor:
        raise MethodError(
            "cocoop has class features only with an image: class_features(image_features(images)) or logits(images)."
        )


def first_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with torch's default initialisation, uniform(-v, v), v = inputs^-1/2, drawn from `generator`."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer
