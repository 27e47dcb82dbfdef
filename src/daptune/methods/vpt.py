"""VPT on CLIP: learn visual tokens; the classifier is zero-shot CLIP's, frozen.

Jia et al., "Visual Prompt Tuning", ECCV 2022, arXiv 2203.12119, section 3.2. Official: KMnP/vpt
src/models/vit_prompt/vit.py. VPT trains a linear head on a supervised tower; with CLIP the text features are the head,
as in the comparisons of DAPT, UPT and MaPLe. Conventions: `daptune.methods.vision_prompts`.
"""

from dataclasses import dataclass

from .vision_prompts import VisionPromptConfig, VisionPrompted
from .zero_shot import ZeroShot, ZeroShotConfig


@dataclass(frozen=True)
class VPTConfig(ZeroShotConfig, VisionPromptConfig):
    """Options of VPT: those of its visual tokens and of the frozen text classifier."""

    vision_depth: int = 0
    """Layers with their own tokens, J: 1 is VPT-shallow, 0 is every layer (VPT-deep), which is better if nothing else
    is learned (docs/defaults.md)."""


class VPT(VisionPrompted, ZeroShot):
    """z = image([CLS, u_1 .. u_P, patches]), u learned for the first layer (shallow) or for each (deep)."""

    name = "vpt"
    title = "Visual Prompt Tuning (VPT)"
    year = 2022
    config_class = VPTConfig
    config: VPTConfig
