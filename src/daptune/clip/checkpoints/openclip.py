"""open_clip's layout: `open_clip_config.json` beside weights under OpenAI's names.

The config is that of open_clip's model_configs (src/open_clip/model.py: CLIPVisionCfg, CLIPTextCfg) under "model_cfg",
and the transform under "preprocess_cfg". Every setting that would change the computation is looked at; one that these
towers do not have is refused by name. `layouts.json` lists, by setting, the values under which they compute the same.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import BackboneError
from ..families import COCA, refuse_unserved
from . import resnet, siglip, trunk
from .containers import read_json
from .shapes import LAYOUTS, Described, claimed, refuse, refuse_settings

CONFIG = "open_clip_config.json"
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_model.safetensors.index.json",
    "open_clip_pytorch_model.bin",
)
_FACTS = LAYOUTS["open_clip"]


def read(tensors: Mapping[str, Tensor], folder: Path, where: str) -> Described:
    """What a folder with an `open_clip_config.json` says; BackboneError for other towers."""
    source = folder / CONFIG
    content = read_json(source)
    model = _part(content, "model_cfg", source)
    vision, text = _part(model, "vision_cfg", source), _part(model, "text_cfg", source)
    transform = _transform(content.get("preprocess_cfg") or {})
    refuse_family(content, where)
    if "siglip" in str(vision.get("timm_model_name")):
        return siglip.of_open_clip(tensors, vision, text, transform, where, source)
    if trunk.family_of(vision.get("timm_model_name")):
        return trunk.of_open_clip(tensors, model, transform, where, source)
    multilingual = text.get("pool_type") == "eos"  # MetaCLIP 2
    _refuse_settings(model, vision, text, where, "multilingual" if multilingual else "text_cfg")
    claims = claimed(_FACTS["claims"], model=model, vision=vision, text=text)
    claims["text_mlp"] = int(claims["text_width"] * claims["text_mlp"])
    if resnet.MARK in tensors:
        return resnet.described(
            tensors,
            where,
            quick_gelu=bool(model.get("quick_gelu")),
            head_width=int(vision.get("head_width", 64)),
            text_heads=int(text.get("heads", 8)),
            claims=claims,
            transform=transform,
            source=source,
        )
    width, head_width = int(claims["vision_width"]), int(vision.get("head_width", 64))
    claims |= {"vision_width": width, "vision_mlp": int(width * claims["vision_mlp"])}
    return Described(
        tensors,
        family="metaclip2" if multilingual else "clip",
        eos_id=int(text.get("eos_id", 2)) if multilingual else None,
        activation="quick_gelu" if model.get("quick_gelu") else "gelu",
        vision_heads=max(1, width // head_width),
        text_heads=int(text.get("heads", 8)),
        claims=claims,
        transform=transform,
        source=str(source),
    )


def refuse_family(content: Mapping[str, Any], where: str) -> None:
    """Raise BackboneError for a config of a family that is known and not served."""
    model = content.get("model_cfg") or {}
    vision, text = model.get("vision_cfg") or {}, model.get("text_cfg") or {}
    if "multimodal_cfg" in model or vision.get("attentional_pool"):
        raise COCA.refusal(where)
    for name in (vision.get("timm_model_name"), text.get("hf_model_name")):
        refuse_unserved(name, where)


def _part(content: Mapping[str, Any], key: str, source: Path) -> Mapping[str, Any]:
    part = content.get(key)
    if not isinstance(part, Mapping):
        raise BackboneError(f"{source} lacks {key!r}: it is no open_clip config; fetch the checkpoint again.")
    return part


def _refuse_settings(
    model: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any], where: str, known_text: str
) -> None:
    """Raise BackboneError for towers that compute otherwise, by their settings. `known_text`: a row of layouts.json."""
    if "init_logit_bias" in model:
        raise refuse(where, "a SigLIP model")
    if name := vision.get("timm_model_name"):
        raise refuse(where, f"an open_clip model whose vision tower is timm's {name}")
    if name := text.get("hf_model_name"):
        raise refuse(where, f"an open_clip model whose text tower is Hugging Face's {name}")
    for title, part, own in (("vision_cfg", vision, "vision_cfg"), ("text_cfg", text, known_text)):
        known = _FACTS["both"] | _FACTS[title] | _FACTS[own]
        # others of these have no effect without a timm or Hugging Face tower
        settings = {key: value for key, value in part.items() if key in known or not key.startswith(("timm_", "hf_"))}
        refuse_settings(title, settings, known, where)
    if unknown := sorted(model.keys() - set(_FACTS["model_cfg"])):
        raise refuse(where, f"an open_clip model with the setting {unknown[0]} = {model[unknown[0]]!r}")


def _transform(values: Mapping[str, Any]) -> dict[str, Any]:
    named = {"mean": "mean", "std": "std", "resize": "resize_mode", "interpolation": "interpolation"}
    return {field: values[key] for field, key in named.items() if values.get(key) is not None}
