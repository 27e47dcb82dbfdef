"""MMRL: representation tokens that join both towers in their upper blocks, read by a head of their own.

Guo & Gu, "MMRL: Multi-Modal Representation Learning for Vision-Language Models", CVPR 2025, arXiv 2503.08497, section
3. Official: yunncheng/MMRL trainers/mmrl.py, clip/model_mmrl.py. Its towers: `daptune.methods.representation`.

    text, blocks J ..    [SOS | t_1 .. t_n | a photo of a | name . EOT]    t = R A_j + a_j, new ones in each block j
    image, blocks J ..   [CLS | patches | v_1 .. v_n]                      v = R B_j + b_j, new ones in each block j
    z = normalise(CLS P), z_r = normalise(mean of the outputs of v P_r), w = normalise(text)

Differences to the official code: J is its sixth of twelve blocks, in other towers the same share; what is below is
computed once; text features follow every step (there, those of the first evaluation are kept); scores are fused if all
classes are those of the fit, by their names.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.towers import JOINING_TEXT_TOKENS, JOINING_VISUAL_TOKENS, VISUAL_PROJECTION
from ..names import ClassNames
from .base import Method
from .options import ONE_NAME, Block, Count, MethodConfig, Share, Tokens, Weight
from .representation import JoinedImages, JoinedTexts
from .templates import PLAIN, choose_templates
from .text_prompts import noise

FIRST = 5 / 12  # share of the blocks below the tokens


@dataclass(frozen=True)
class MMRLConfig(MethodConfig):
    tokens: Tokens = 5
    """Representation tokens, n."""
    width: Count = 512
    """Width of the space that they are learned in, r."""
    first_block: Block = 0
    """First block of both towers, from 1, that has the tokens; 0: the paper's 6th of 12, in others the same share."""
    class_share: Share = 0.7
    """Share alpha of the class token's head in the loss, and in the scores of classes of the fit."""
    consistency_weight: Weight = 0.5
    """Weight lambda of the distances from the frozen CLIP's image and text features; 0 leaves them out."""
    template: Annotated[str, ONE_NAME] = PLAIN
    """Prompt, with one {} for the class name."""
    dataset: str = ""
    """Use the template of this benchmark data set in its place."""
    random_projection: bool = True
    """Start the projection of the tokens' head from noise; otherwise from CLIP's."""
    fitted: tuple[str, ...] = ()
    """Names of the classes of the fit, if the classes are others; with_classes sets it."""

    def for_new_classes(self) -> Self:
        return replace(self, fitted=())


class MMRL(Method):
    """logits = exp(logit_scale) (alpha z + (1 - alpha) z_r) w^T for the classes of the fit, of z alone for others."""

    name = "mmrl"
    title = "Multi-Modal Representation Learning (MMRL)"
    year = 2025
    config_class = MMRLConfig
    sees = "fixed features"
    needs = frozenset({VISUAL_PROJECTION, JOINING_VISUAL_TOKENS, JOINING_TEXT_TOKENS})
    default_lr = 0.001
    joins_ensemble = False  # it would read `encode` as CLIP's features, which hidden states are not
    multi_label = True
    config: MMRLConfig

    def build(self, generator: torch.Generator) -> None:
        """R (n, r), N(0, 0.02); the maps of both towers; P_r (W, D)."""
        backbone, sizes, config = self.backbone, self.clip.config, self.config
        first, own = (config.block_of("first_block", n, FIRST) for n in (sizes.vision_layers, sizes.text_layers))
        template = choose_templates(config.dataset)[0] if config.dataset else config.template
        self.representation = noise(self.clip, (config.tokens, config.width), generator)
        self.images = JoinedImages(backbone, first, config.width, noise=config.random_projection, generator=generator)
        self.texts = JoinedTexts(backbone, self.prompt_names, template, own, config.width, generator)

    @property
    def encoded_size(self) -> int:
        return (2 + self.clip.config.patches) * self.clip.config.vision_width

    def with_classes(self, class_names: ClassNames) -> Self:
        other = super().with_classes(class_names)
        names = self.config.fitted or tuple(name for own in self.prompt_names for name in own)
        other.config = replace(self.config, fitted=names)
        return other

    def text_features(self) -> Tensor:
        return self.texts.features(self.representation)

    def encode_images(self, images: Tensor) -> Tensor:
        """Hidden states at block J; in training also the frozen feature: (B, 3, R, R) -> (B, 1 + G or 2 + G, W)."""
        return self.images.states(images, frozen=self.training)

    def image_features(self, images: Tensor) -> Tensor:
        """z, of the class token: (B, D)."""
        return self.images(self.encode(images), self.representation)[0]

    def logits(self, images: Tensor) -> Tensor:
        (z, z_r), fitted = self.images(self.encode(images), self.representation), set(self.config.fitted)
        if not fitted or all(fitted.issuperset(own) for own in self.prompt_names):
            z = self.config.class_share * z + (1 - self.config.class_share) * z_r
        return self.scale * z @ self.class_text_features().mT

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        states, w, alpha = self.encode(images), self.class_text_features(), self.config.class_share
        z, z_r = self.images(states, self.representation)
        z0, w0 = self.images.frozen_features(states), self.texts.frozen_features()
        terms = {
            "representation": self.cross_entropy(self.scale * z_r @ w.mT, labels),
            "cross_entropy": self.cross_entropy(self.scale * z @ w.mT, labels),
            "image": 1 - F.cosine_similarity(z, z0, dim=-1).mean(),
            "text": 1 - F.cosine_similarity(w, w0, dim=-1).mean(),
        }
        total = alpha * terms["cross_entropy"] + (1 - alpha) * terms["representation"]
        return {**terms, "total": total + self.config.consistency_weight * (terms["image"] + terms["text"])}
