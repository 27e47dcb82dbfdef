"""CoOp + VPT: learn text and visual tokens together, with cross-entropy only.

DAPT's baseline without its losses: Cho, Kim & Kim, ICCV 2023, arXiv 2309.03406, section 3. Official:
mlvlab/DAPT trainers/dapt.py with VIS_BETA = TXT_BETA = 0.
"""

from dataclasses import dataclass

from ..clip.towers import LEARNED_CONTEXT, VISUAL_TOKENS
from .coop import CoOp, CoOpConfig
from .vision_prompts import VisionPromptConfig, VisionPrompted


@dataclass(frozen=True)
class CoOpVPTConfig(VisionPromptConfig, CoOpConfig):
    """Options of both prompts."""


class CoOpVPT(VisionPrompted, CoOp):
    """z = image([CLS, u_1 .. u_P, patches]), w_c = text([v_1 .. v_M, class c, "."]), with u and v learned."""

    name = "coop_vpt"
    title = "CoOp + VPT"
    year = 2023
    config_class = CoOpVPTConfig
    sees = "features"
    needs = frozenset({LEARNED_CONTEXT, VISUAL_TOKENS})
    text_first = True
    config: CoOpVPTConfig
