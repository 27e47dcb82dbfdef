"""UPT: prompts for both towers, made from learned tokens by a small Transformer layer.

Zang, Li, Zhou, Huang & Loy, "Unified Vision and Language Prompt Learning", arXiv 2210.07225, section 3. Official:
yuhangzang/UPT, which holds no code; the reference is sIncerass/MVLPT trainers/mvlpt.py with both prompts and
PROJECT_METHOD "transformer". The network and its differences: `daptune.methods.prompt_network`. Positions of the
tokens: `daptune.methods.text_prompts` and `daptune.methods.vision_prompts`.

Differences to the reference: the class name follows the context, so that the prefix is shared, instead of being in its
middle (`class_position=middle`, used by `--preset paper`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..clip.towers import LEARNED_CONTEXT, VISUAL_TOKENS
from .base import Method
from .coop_vpt import CoOpVPTConfig
from .options import Count
from .prompt_network import PromptNetwork
from .text_prompts import TextPrompts
from .vision_prompts import initial_vision_prompt, joining_tokens


@dataclass(frozen=True)
class UPTConfig(CoOpVPTConfig):
    """Options of UPT: those of both prompts, and of the network."""

    text_tokens: int = 4
    """Context tokens, M."""
    vision_tokens: int = 4
    """Visual prompt tokens per layer, P."""
    vision_depth: int = 0
    """Layers with their own visual tokens, J: 0 is every layer, 1 only the first."""
    network_width: Count = 128
    """Width of the network, E."""
    official_attention: bool = False
    """Let each token attend only to itself, as in the reference, which swaps two dimensions."""


class UPT(Method):
    """z = image([CLS, u'_1 .. u'_P, patches]), w_c = text([v'_1 .. v'_M, class c, "."]), (v', u') = network(v, u)."""

    name = "upt"
    title = "Unified Prompt Tuning (UPT)"
    year = 2022
    config_class = UPTConfig
    needs = frozenset({LEARNED_CONTEXT, VISUAL_TOKENS})
    config: UPTConfig
    raw_text_prompt: nn.Parameter
    raw_vision_prompt: nn.Parameter

    def build(self, generator: torch.Generator) -> None:
        """The tokens v (M, W_text) and u (J, P, W_vision), initialised as CoOp's and VPT's, and the network."""
        sizes = self.clip.config
        self.prompts = TextPrompts(self.backbone, self.prompt_names, self.config)
        self.raw_text_prompt = self.prompts.initial(generator)
        self.raw_vision_prompt = initial_vision_prompt(self.clip, self.config, generator)
        width, official = self.config.network_width, self.config.official_attention
        network = PromptNetwork(sizes.text_width, sizes.vision_width, width, generator, official_attention=official)
        self.network = network.to(self.clip.device)

    def unified_prompts(self) -> tuple[Tensor, Tensor]:
        """The prompts v' and u' of the towers, with the shapes of v and u."""
        prompts: tuple[Tensor, Tensor] = self.network(self.raw_text_prompt, self.raw_vision_prompt)
        return prompts

    def text_features(self) -> Tensor:
        return self.prompts.features(self.unified_prompts()[0])

    @property
    def pools_prompts(self) -> bool:
        return self.config.vision_pooled

    def image_prompts(self) -> Tensor:
        return joining_tokens(self.clip, self.unified_prompts()[1], self.config)
