"""Hand-written prompts for zero-shot CLIP (Radford et al. 2021, arXiv 2103.00020, section 3.1.4).

templates.json holds one template per benchmark data set and the seven of the ensemble, as in the CoOp family
(KaiyangZhou/CoOp trainers/zsclip.py, trainers/imagenet_templates.py), and the sixty of PromptSRC
(muzairkhattak/PromptSRC trainers/imagenet_templates.py), a subset of OpenAI's eighty for ImageNet.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.backbone import Backbone
from ..clip.pooling import Names, pool_names
from ..clip.suffixes import Suffixes, check_name
from ..errors import MethodError, suggest
from ..files import read_json
from ..names import readable

_TABLE: dict[str, Any] = read_json(Path(__file__).with_name("templates.json"))
PLAIN: str = _TABLE["plain"]
DATASET_TEMPLATES: dict[str, str] = _TABLE["datasets"]
"""Data set (Dassl's name) -> template."""
ENSEMBLE: tuple[str, ...] = tuple(_TABLE["ensemble"])
"""The seven templates that OpenAI's notebook selected on ImageNet."""
SIXTY: tuple[str, ...] = tuple(_TABLE["sixty"])
"""The sixty templates that PromptSRC's frozen text features average."""


def find_dataset(name: str) -> str:
    """Dassl's name of a benchmark data set in any spelling (`oxford_pets`, `OxfordPets`, `dtd`)."""
    known = {key.lower(): key for key in DATASET_TEMPLATES} | _TABLE["spellings"]
    key = "".join(c for c in name.lower() if c.isalnum())
    if key not in known:
        raise MethodError(f"dataset: there are no templates for {name!r}.{suggest(key, known)}")
    return known[key]


def choose_templates(dataset: str = "", ensemble: bool = False) -> tuple[str, ...]:
    """The data set's template; with `ensemble` the seven, followed by the data set's except for ImageNet."""
    name = find_dataset(dataset) if dataset else ""
    own = (DATASET_TEMPLATES.get(name, PLAIN),)
    if not ensemble:
        return own
    return ENSEMBLE if name == "ImageNet" else ENSEMBLE + own


def fill(template: str, names: Sequence[str], *, underscores: bool = False) -> list[str]:
    """The template with each name; "_" in names becomes a blank unless `underscores` are kept."""
    return [template.replace("{}", name if underscores else readable(name)) for name in names]


def check_length(backbone: Backbone, texts: Sequence[str], names: Sequence[str]) -> None:
    """Raise MethodError if the text tower has no room for a text that says the name at its place in `names`."""
    tokenizer = backbone.tokenizer
    for text, name in zip(texts, names, strict=True):
        if (count := len(tokenizer.start) + len(tokenizer.encode(text)) + 1) > tokenizer.context_length:
            shown = name if len(name) <= 60 else f"{name[:57]}..."
            raise MethodError(
                f"the hand-written prompt of the class {shown!r} takes {count} tokens with its start and end, and "
                f"the backbone's limit is {tokenizer.context_length}: give the class a shorter name (--names keeps the "
                "label), or use a shorter --template."
            )


@torch.inference_mode(False)  # the result is used in training
@torch.no_grad()
def template_features(backbone: Backbone, class_names: Names, templates: Sequence[str], *, unit: bool = True) -> Tensor:
    """Zero-shot class weights: the normalised mean over templates of unit text features, (C, D).

    Without `unit` the averaged features are not normalised (PromptSRC). Of a class with several names, it is the
    normalised mean of the weights of its names.
    """
    names, pool = pool_names(class_names)
    weights = F.normalize(_mean_over_templates(backbone, names, templates, unit=unit), dim=-1)
    return weights if pool is None else pool.to(backbone.clip.device)(weights)


@torch.inference_mode(False)
@torch.no_grad()
def unnormalised_features(
    backbone: Backbone, class_names: Names, templates: Sequence[str], *, underscores: bool = False
) -> Tensor:
    """Mean over templates of text features as the tower gives them, with their lengths (C, D): TaskRes, CLAP."""
    names, pool = pool_names(class_names)
    means = _mean_over_templates(backbone, names, templates, unit=False, underscores=underscores)
    return means if pool is None else pool.to(backbone.clip.device)(means)


def _mean_over_templates(
    backbone: Backbone, names: Sequence[str], templates: Sequence[str], *, unit: bool, underscores: bool = False
) -> Tensor:
    text, total = backbone.clip.text, torch.zeros((), device=backbone.clip.device)
    for name in names:
        check_name(backbone.tokenizer, name)
    for template in templates:
        texts = fill(template, names, underscores=underscores)
        check_length(backbone, texts, names)
        words, suffixes = Suffixes.of_texts(backbone.tokenizer, texts)  # the common prefix is encoded once
        context = text.embed(words).unsqueeze(0)  # (1, M, W)
        features = text.features(context, suffixes)[0]
        total = total + (F.normalize(features, dim=-1) if unit else features)
    return total / len(templates)
