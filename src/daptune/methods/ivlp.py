"""IVLP: independent deep text and deep visual prompts, the baseline of MaPLe and PromptSRC.

Khattak et al., "MaPLe: Multi-modal Prompt Learning", CVPR 2023, arXiv 2210.03117, table 1 ("independent V-L
prompting"). Official: muzairkhattak/multimodal-prompt-learning trainers/independentVL.py with clip/model.py,
ResidualAttentionBlock_IVLP. Layout of the text tokens: `daptune.methods.deep_text_prompts`; of the visual tokens,
after the patches: `daptune.methods.vision_prompts`.

Differences to the official code: it always casts the prompts of each layer to fp16 and so runs only on a GPU in fp16;
its checkpoints hold the whole CLIP.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..clip.towers import LEARNED_CONTEXT, VISUAL_TOKENS
from .deep_text_prompts import DeepTextPromptConfig, DeepTextPrompts
from .options import Depth
from .vision_prompts import VisionPromptConfig, VisionPrompted, initial_vision_prompt


@dataclass(frozen=True)
class IVLPConfig(DeepTextPromptConfig, VisionPromptConfig):
    text_depth: Depth = 0
    """Layers of the text tower with their own tokens, J: 1 is shallow, 0 is every layer."""
    vision_tokens: int = 2
    """Visual prompt tokens per layer, P."""
    vision_depth: int = 0
    """Layers of the vision tower with their own tokens: 1 is shallow, 0 is every layer."""
    vision_position: str = "append"
    """append (before ln_pre: MaPLe, PromptSRC) or after_ln_pre (VPT, DAPT)."""


class IVLP(VisionPrompted):
    """z = image([CLS, patches, u_1 .. u_P]), w_c = text([v_1 .. v_M, "of a", class c, "."]); u, v for each layer."""

    name = "ivlp"
    title = "Independent Vision-Language Prompting (IVLP)"
    year = 2023
    config_class = IVLPConfig
    needs = frozenset({LEARNED_CONTEXT, VISUAL_TOKENS})
    paper_depth: ClassVar[int] = 0  # layers of both towers if an option is 0, see `MethodConfig.depth_of`
    config: IVLPConfig
    text_prompt: nn.Parameter

    def build(self, generator: torch.Generator) -> None:
        """The text tokens v (J, M, W) and the visual tokens u (J, P, W), or (P, W) if shallow."""
        layers, paper = self.clip.config.text_layers, self.paper_depth
        depth = self.config.depth_of("text_depth", "text tower", layers, paper=paper)
        self.prompts = DeepTextPrompts(self.backbone, self.prompt_names, self.config)
        self.text_prompt = self.prompts.initial(depth, generator)
        self.vision_prompt = initial_vision_prompt(self.clip, self.config, generator, paper_depth=paper)

    def text_features(self) -> Tensor:
        return self.prompts.features(self.text_prompt)
