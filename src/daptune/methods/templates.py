"""Hand-written prompts for zero-shot CLIP (Radford et al. 2021, arXiv 2103.00020, section 3.1.4).

One template a benchmark data set and the seven of the ensemble, as used by the CoOp family (KaiyangZhou/CoOp
trainers/zsclip.py, trainers/imagenet_templates.py), and the sixty of PromptSRC (muzairkhattak/PromptSRC
trainers/imagenet_templates.py), three quarters of OpenAI's eighty for ImageNet.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.backbone import Backbone
from ..clip.prefix import Suffixes, shared_prefix_features
from ..errors import MethodError, suggest
from ..names import readable

PLAIN = "a photo of a {}."

DATASET_TEMPLATES = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "Food101": "a photo of {}, a type of food.",
    "UCF101": "a photo of a person doing {}.",
    **dict.fromkeys(("StanfordCars", "SUN397", "Caltech101", "ImageNet"), PLAIN),
    **dict.fromkeys(("ImageNetSketch", "ImageNetV2", "ImageNetA", "ImageNetR"), PLAIN),
}
"""Data set (Dassl's name) -> template."""

ENSEMBLE = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""The seven templates that OpenAI's notebook selected on ImageNet."""

SIXTY = (
    "a photo of a {}.", "a photo of the {}.", "a photo of one {}.", "a photo of many {}.", "a photo of my {}.",
    "a bad photo of a {}.", "a bad photo of the {}.", "a good photo of the {}.", "a photo of a large {}.",
    "a photo of a nice {}.", "a photo of a weird {}.", "a photo of the cool {}.", "a photo of a clean {}.",
    "a photo of the clean {}.", "a photo of a dirty {}.", "a photo of the dirty {}.", "a photo of a hard to see {}.",
    "a photo of the hard to see {}.", "a low resolution photo of a {}.", "a low resolution photo of the {}.",
    "a bright photo of a {}.", "a bright photo of the {}.", "a dark photo of the {}.", "a blurry photo of a {}.",
    "a blurry photo of the {}.", "a pixelated photo of a {}.", "a pixelated photo of the {}.",
    "a jpeg corrupted photo of a {}.", "a cropped photo of a {}.", "a cropped photo of the {}.",
    "a close-up photo of a {}.", "a close-up photo of the {}.", "a black and white photo of the {}.",
    "a drawing of a {}.", "a painting of a {}.", "a painting of the {}.", "a sketch of a {}.", "a sketch of the {}.",
    "a doodle of a {}.", "a doodle of the {}.", "a sculpture of a {}.", "a sculpture of the {}.",
    "a rendering of a {}.", "a rendering of the {}.", "a rendition of a {}.", "a rendition of the {}.",
    "a tattoo of a {}.", "graffiti of a {}.", "art of a {}.", "a cartoon {}.", "a embroidered {}.",
    "the embroidered {}.", "a origami {}.", "the origami {}.", "a plastic {}.", "the plastic {}.", "the toy {}.",
    "a {} in a video game.", "the {} in a video game.", "itap of the {}.",
)  # fmt: skip
"""The sixty templates that PromptSRC's frozen text features average."""

_ALSO = {"dtd": "DescribableTextures", "flowers102": "OxfordFlowers", "pets": "OxfordPets", "cars": "StanfordCars"}


def find_dataset(name: str) -> str:
    """Dassl's name of a benchmark data set, however it is spelt (`oxford_pets`, `OxfordPets`, `dtd`)."""
    known = {key.lower(): key for key in DATASET_TEMPLATES} | _ALSO
    key = "".join(c for c in name.lower() if c.isalnum())
    if key not in known:
        raise MethodError(f"dataset: there are no templates for {name!r}.{suggest(key, known)}")
    return known[key]


def choose_templates(dataset: str = "", ensemble: bool = False) -> tuple[str, ...]:
    """The data set's own template; with `ensemble` the seven, and the own one behind them except for ImageNet.

    Dassl's class appends to a shared list, so that a second model in one process has one more; this does not.
    """
    name = find_dataset(dataset) if dataset else ""
    own = (DATASET_TEMPLATES.get(name, PLAIN),)
    if not ensemble:
        return own
    return ENSEMBLE if name == "ImageNet" else ENSEMBLE + own


def fill(template: str, class_names: Sequence[str]) -> list[str]:
    """The prompt of each class."""
    return [template.replace("{}", readable(name)) for name in class_names]


@torch.inference_mode(False)  # the result takes part in training later
@torch.no_grad()
def template_features(
    backbone: Backbone, class_names: Sequence[str], templates: Sequence[str], *, unit: bool = True
) -> Tensor:
    """Zero-shot class weights: the mean over templates of unit text features, made unit again: (C, D).

    Without `unit` the mean is over features of their own length (PromptSRC).
    """
    clip = backbone.clip
    total = torch.zeros((), device=clip.device)
    for template in templates:
        texts = fill(template, class_names)
        words, names = Suffixes.of_texts(backbone.tokenizer, texts)  # what all have in common is encoded once
        context = clip.token_embedding(words.to(clip.device)).unsqueeze(0)  # (1, M, W)
        features = shared_prefix_features(clip, context, names)[0]
        total = total + (F.normalize(features, dim=-1) if unit else features)
    return F.normalize(total / len(templates), dim=-1)
