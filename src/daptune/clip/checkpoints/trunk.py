"""open_clip's layout with an image tower of timm (`visual.trunk`), and Meta's own files of PE-Core.

open_clip's configs name the trunk alone (src/open_clip/model_configs; src/open_clip/timm_model.py); its sizes are those
of the weights, and what shapes do not say is in `layouts.json`, from timm (timm/models/eva.py). `siglip` reads SigLIP's
trunks. Meta's files (facebookresearch/perception_models, core/vision_encoder/pe.py) have OpenAI's names and no config.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .shapes import LAYOUTS, Described, claimed, refuse, refuse_settings, shape_of, stacked

PREFIX = "visual.trunk."
META = "visual.attn_pool.probe"
"""A tensor of Meta's files alone."""
FAMILIES = ("pe", "eva")
_FACTS = LAYOUTS["trunk"]
_WHOLE: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "pos_embed": ("visual.positional_embedding", lambda t: t.reshape(t.shape[-2:])),
    "cls_token": ("visual.class_embedding", lambda t: t.reshape(t.shape[-1:])),
    "head.weight": ("visual.proj", lambda t: t.t() if t.ndim == 2 else t),
    "head.bias": ("visual.proj_bias", lambda t: t),
    "attn_pool.latent": ("visual.head.probe", lambda t: t),
}
"""timm's name -> OpenAI's, and the change of shape."""
_TEXT_CLAIMS = ("embed_dim", "text_width", "text_layers", "text_mlp", "context_length", "vocab_size")


def family_of(trunk: object) -> str | None:
    """The family of a trunk by its name in timm, if it is one that is read here."""
    return next((family for family in FAMILIES if re.fullmatch(_FACTS[family]["pattern"], str(trunk))), None)


def of_open_clip(
    tensors: Mapping[str, Tensor], model: Mapping[str, Any], transform: Mapping[str, Any], where: str, source: Path
) -> Described:
    """What an `open_clip_config.json` with a trunk of FAMILIES says; BackboneError for other towers."""
    vision, text = model["vision_cfg"], model["text_cfg"]
    family = family_of(vision["timm_model_name"])
    match = re.fullmatch(_FACTS[family]["pattern"], vision["timm_model_name"]) if family else None
    if family is None or match is None or match[1] not in _FACTS[family]["heads"]:
        raise refuse(where, f"an open_clip model whose vision tower is timm's {vision['timm_model_name']}")
    facts, known = _FACTS[family], LAYOUTS["open_clip"]
    pool = {"timm_pool": [facts["pool"]]}
    refuse_settings("vision_cfg", {"timm_pool": "avg"} | dict(vision), _FACTS["vision_cfg"] | pool, where)
    refuse_settings("text_cfg", text, known["both"] | known["text_cfg"], where)
    refuse_settings("model_cfg", model, dict.fromkeys(known["model_cfg"], "any"), where)
    claims = claimed({field: known["claims"][field] for field in _TEXT_CLAIMS}, model=model, text=text)
    claims |= {
        "text_mlp": int(claims["text_width"] * claims["text_mlp"]),
        "image_size": vision.get("image_size", 224),
    }
    return Described(
        rename(tensors, where),
        family=family,
        activation="gelu",
        text_activation="quick_gelu" if model.get("quick_gelu") else "",
        norm_eps=facts["norm_eps"],
        vision_heads=facts["heads"][match[1]],
        text_heads=int(text.get("heads", 8)),
        claims=claims,
        transform=facts["transform"] | dict(transform),
        source=str(source),
        class_token=f"{PREFIX}cls_token" in tensors,
    )


def of_meta(tensors: Mapping[str, Tensor], where: str) -> Described:
    """What a file of Meta's says; its projection has no bias."""
    facts = _FACTS["pe"]
    width, size = shape_of(tensors, "visual.proj", 2, where)
    ours = {"visual.proj_bias": torch.zeros(size)}
    for name, tensor in tensors.items():
        own = name.replace("visual.attn_pool.layernorm.", "visual.head.ln.")
        ours[own.replace("visual.attn_pool.", "visual.head.")] = tensor
    return Described(
        ours,
        family="pe",
        activation="gelu",
        norm_eps=facts["norm_eps"],
        vision_heads=max(1, width // facts["head_width_of"].get(str(width), 64)),
        transform=facts["transform"],
        class_token="visual.class_embedding" in tensors,
    )


def rename(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """timm's names -> OpenAI's; projections to queries, keys and values are stacked."""
    found: dict[str, Tensor] = {}
    fused: dict[tuple[str, str], dict[str, Tensor]] = {}  # by OpenAI's name and timm's
    for name, tensor in tensors.items():
        if not name.startswith(PREFIX):
            found[name] = tensor
            continue
        own = name.removeprefix(PREFIX)
        stem, _, kind = own.rpartition(".")
        if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", stem):
            block, part = f"visual.transformer.resblocks.{match[1]}", match[2]
            if part in ("attn.q_proj", "attn.k_proj", "attn.v_proj"):
                theirs = f"{PREFIX}blocks.{match[1]}.attn.{{}}_proj.{kind}"
                fused.setdefault((f"{block}.attn.in_proj_{kind}", theirs), {})[part[5]] = tensor
            elif part == "attn.qkv":
                found[f"{block}.attn.in_proj_{kind}"] = tensor
            else:
                found[f"{block}.{_FACTS['in_block'].get(part, part)}.{kind}"] = tensor
        elif stem in ("attn_pool.q", "attn_pool.kv"):
            ours, theirs = f"visual.head.attn.in_proj_{kind}", f"{PREFIX}attn_pool.{{}}.{kind}"
            fused.setdefault((ours, theirs), {})[stem.rpartition(".")[2]] = tensor
        elif own in _WHOLE:
            new, change = _WHOLE[own]
            found[new] = change(tensor)
        else:
            found[f"visual.{_FACTS['names'].get(stem, stem)}.{kind}"] = tensor
    for (ours, theirs), parts in fused.items():
        if ours.endswith("_bias") and "v" in parts:  # EVA02's keys have none
            parts.setdefault("k", torch.zeros_like(parts["v"]))
        found[ours] = stacked(parts, ("q", "kv") if ".head." in ours else ("q", "k", "v"), theirs, where)
    return found
