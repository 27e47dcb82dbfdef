"""Families of CLIPs that are known and not served: what a name, a config or a weight file of one is answered.

Names are those of open_clip (src/open_clip/pretrained.py), of timm's trunks in its configs, and of repositories.
"""

import re
from dataclasses import dataclass

from ..errors import BackboneError


@dataclass(frozen=True)
class Family:
    """`pattern` finds a name of it; the rest are the parts of the sentence."""

    pattern: str
    title: str
    why: str
    instead: str

    def refusal(self, what: str) -> BackboneError:
        return BackboneError(f"{what} is {self.title}, which is not served: {self.why}; take {self.instead}.")


NAFLEX = Family(
    r"naflex",
    "a SigLIP 2 NaFlex model",
    "its images have no fixed resolution",
    "its sibling with one: hf:google/siglip2-base-patch16-224 or ViT-B-16-SigLIP2/webli",
)
PE = Family(
    r"\bpe[-_](lang|spatial)|vit_pe_(lang|spatial)",
    "a Perception Encoder without a text tower (PE-Lang, PE-Spatial)",
    "classes are named by a text tower",
    "PE-Core-B-16/meta or PE-Core-L-14-336/meta",
)
EVA = Family(
    r"\beva(01|[-_]?clip|_giant|_large)|\beva02[-_]e",
    "an EVA01-CLIP, an EVA02-CLIP E/14, or a file in BAAI's own layout",
    "of EVA-CLIPs, EVA02 B/16 and L/14 are read, in open_clip's layout",
    "EVA02-L-14/merged2b_s4b_b131k or ViT-L-14/dfn2b",
)
MOBILE = Family(
    r"mobileclip|fastvit|_mci",
    "a MobileCLIP",
    "its image tower is a FastViT or has its stem, and its text tower sees pads",
    "ViT-B-32/datacomp_xl_s13b_b90k, or RN50/openai for a network of convolutions",
)
ROBERTA = Family(
    r"roberta|\bmt5-(base|large|xl)|nllb",
    "a CLIP whose text tower is one of Hugging Face's (XLM-RoBERTa, RoBERTa, mT5, NLLB)",
    "its blocks and pooling are others",
    "ViT-H-14-worldwide/metaclip2_worldwide or ViT-B-16-SigLIP2/webli, which know many languages",
)
CHINESE = Family(
    r"chinese[-_]?clip|altclip",
    "a CLIP whose text tower is one of Hugging Face's (BERT, XLM-RoBERTa)",
    "its blocks and pooling are others",
    "ViT-H-14-worldwide/metaclip2_worldwide or ViT-B-16-SigLIP2/webli, which know many languages",
)
COCA = Family(
    r"\bcoca",
    "a CoCa model",
    "it pools images by learned queries and has a decoder of texts",
    "ViT-B-32/laion2b_s34b_b79k or ViT-L-14/laion2b_s32b_b82k, of the same data",
)
CLIPA = Family(
    r"clipa\b|clipa-",
    "a CLIPA model",
    "it averages the patches of an image, and its texts are read at their last place",
    "ViT-L-14/datacomp_xl_s13b_b90k or ViT-H-14/dfn5b",
)
CONVOLUTIONS = Family(
    r"convnext|vitamin",
    "a CLIP with a ConvNeXt or ViTamin",
    "of convolutional image towers only OpenAI's residual networks are read",
    "RN50x16/openai or ViT-L-14/datacomp_xl_s13b_b90k",
)
UNSERVED = (NAFLEX, PE, EVA, MOBILE, ROBERTA, CHINESE, COCA, CLIPA, CONVOLUTIONS)


def unserved(name: object) -> Family | None:
    """The family that a name of a model, a trunk, a text tower or a repository belongs to, if it is not served."""
    return next((each for each in UNSERVED if re.search(each.pattern, str(name), re.IGNORECASE)), None)


def refuse_unserved(name: object, what: str) -> None:
    """Raise BackboneError if a name belongs to a family that is not served; `what` is what the user gave."""
    if family := unserved(name):
        raise family.refusal(what)
