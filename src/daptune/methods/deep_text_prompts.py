"""Deep text prompts: learned tokens after SOS, replaced by new ones at the input of the next blocks.

Khattak, Rasheed, Maaz, Khan & Khan, "MaPLe: Multi-modal Prompt Learning", CVPR 2023, arXiv 2210.03117, section 3.2.
Official: muzairkhattak/multimodal-prompt-learning trainers/maple.py, trainers/independentVL.py, clip/model.py.

    block 1       [SOS | v_1 .. v_M | frozen words | name . EOT]
    blocks 2..J   the same, with the outputs at the positions of v replaced by the v of that layer

The first context starts from the embeddings of the first M words of `context_init`; the other words stay in the
prompt, frozen, as in the official code: M = 2 of "a photo of a" leaves "of a". With M larger than the phrase the
official code starts from noise (M > 4) or treats EOT and padding as words; here this is an error.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.backbone import Backbone
from ..clip.pooling import Names
from ..clip.suffixes import Suffixes
from ..names import readable
from .options import MethodConfig, Tokens
from .text_prompts import noise


@dataclass(frozen=True)
class DeepTextPromptConfig(MethodConfig):
    text_tokens: Tokens = 2
    """Text prompt tokens a layer, M."""
    context_init: str = "a photo of a"
    """Words before the class name: the first text_tokens are learned, the others stay frozen. Empty: tokens start from
    N(0, 0.02) noise, without frozen words."""


class DeepTextPrompts:
    """The prompts of C classes, tokenised once; `features` encodes them with any tokens."""

    def __init__(self, backbone: Backbone, class_names: Names, config: DeepTextPromptConfig) -> None:
        self.clip = backbone.clip
        self.tokens = config.text_tokens
        self.words = backbone.tokenizer.encode(readable(config.context_init))
        fits = not self.words or self.tokens <= len(self.words)
        config.require("text_tokens", fits, f"1 to {len(self.words)} (context_init's) or an empty context_init")
        self.suffixes = Suffixes.build(backbone.tokenizer, class_names, len(self.words) or self.tokens)

    def initial(self, depth: int, generator: torch.Generator) -> nn.Parameter:
        """Initial tokens (J, M, W) for J = `depth` layers: N(0, 0.02), in the first layer the words."""
        prompt = noise(self.clip, (depth, self.tokens, self.clip.config.text_width), generator)
        if self.words:
            prompt.data[0] = self.clip.text.embed(self.words[: self.tokens])
        return prompt

    def features(self, prompt: Tensor) -> Tensor:
        """Unit class features: tokens (J, M, W) -> (C, D)."""
        frozen = self.clip.text.embed(self.words[self.tokens :])
        context = torch.cat([prompt[0], frozen]).unsqueeze(0)  # (1, M + frozen, W), shared by all classes
        features = self.clip.text.features(context, self.suffixes, prompt[1:])
        return F.normalize(features[0], dim=-1)
