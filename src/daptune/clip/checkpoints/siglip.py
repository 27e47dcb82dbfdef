"""SigLIP and SigLIP 2 at a fixed resolution, in the layouts of transformers and open_clip.

transformers: `config.json` of a SiglipModel, whose parts hold only what differs from SigLIP's defaults
(src/transformers/models/siglip/configuration_siglip.py). open_clip: a timm trunk and a text tower of its own
(src/open_clip/model_configs/*SigLIP*.json; timm, models/vision_transformer.py). The two compute GELU differently, by
tanh or exactly; each layout is followed. How many heads a trunk has does not follow from its width: `layouts.json`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import trunk
from .shapes import LAYOUTS, Described, claimed, refuse, refuse_settings

_FACTS = LAYOUTS["siglip"]
DEFAULTS = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "resize": "squash"}
"""Of the image transform."""
_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "quick_gelu": "quick_gelu"}
_NAME = re.compile(r"vit_(\w+?)_patch\d+_siglip_\d+")
# the trunks that timm builds with the tanh form of GELU
_TANH = re.compile(r"vit_(base_patch32|large_patch16_siglip_512|so400m_patch16|giantopt)")


def of_transformers(
    tensors: Mapping[str, Tensor], content: Mapping[str, Any], transform: Mapping[str, Any], where: str, source: Path
) -> Described:
    """What a SiglipModel's `config.json` says of tensors under OpenAI's names; BackboneError for other towers."""
    text, vision = content.get("text_config") or {}, content.get("vision_config") or {}
    if vision.get("vision_use_head") is False:
        raise refuse(where, "a SigLIP without its pooling head")
    acts = [part.get("hidden_act", "gelu_pytorch_tanh") for part in (vision, text)]
    epsilons = {float(part.get("layer_norm_eps", 1e-6)) for part in (vision, text)}
    if len(epsilons) > 1 or not set(acts) <= _ACTIVATIONS.keys():
        raise refuse(where, f"a SigLIP with the activations {acts} and layer_norm_eps {sorted(epsilons)}")
    return Described(
        _with_bias(tensors),
        activation=_ACTIVATIONS[acts[0]],
        text_activation=_ACTIVATIONS[acts[1]],
        norm_eps=epsilons.pop(),
        vision_heads=int(vision.get("num_attention_heads", 12)),
        text_heads=int(text.get("num_attention_heads", 12)),
        claims=claimed(_FACTS["claims"], vision=vision, text=text) | {"embed_dim": text.get("projection_size")},
        transform=transform,
        source=str(source),
        family="siglip",
    )


def of_open_clip(
    tensors: Mapping[str, Tensor],
    vision: Mapping[str, Any],
    text: Mapping[str, Any],
    transform: Mapping[str, Any],
    where: str,
    source: Path,
) -> Described:
    """What an `open_clip_config.json` with a SigLIP trunk says; BackboneError for other towers."""
    name = str(vision["timm_model_name"])
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in _FACTS["heads"] or vision.get("timm_pool", "map") != "map":
        raise refuse(where, f"an open_clip model whose vision tower is timm's {name}")
    refuse_settings("text_cfg", text, _FACTS["text_cfg"], where)
    return Described(
        _with_bias(trunk.rename(tensors, where)),
        activation="gelu_tanh" if _TANH.match(name) else "gelu",
        text_activation="gelu_tanh" if (text.get("act_kwargs") or {}).get("approximate") == "tanh" else "gelu",
        norm_eps=float((text.get("norm_kwargs") or {}).get("eps", 1e-5)),
        vision_heads=_FACTS["heads"][match[1]],
        text_heads=int(text.get("heads", 8)),
        claims={
            "image_size": vision.get("image_size", 224),
            "context_length": text.get("context_length"),
            "vocab_size": text.get("vocab_size"),
            "text_width": text.get("width"),
            "text_layers": text.get("layers"),
        },
        transform=DEFAULTS | dict(transform),
        source=str(source),
        family="siglip",
    )


def _with_bias(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Files from before the bias was stored mean 0."""
    return {"logit_bias": torch.zeros(()), **tensors}
