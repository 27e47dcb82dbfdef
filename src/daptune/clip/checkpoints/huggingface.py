"""transformers' layout: `config.json` of a CLIPModel, SiglipModel or MetaClip2Model beside weights under its own names.

Names follow transformers (src/transformers/models/clip/modeling_clip.py); q, k and v are stacked into OpenAI's
in_proj, and the projections, stored as linear layers, are transposed.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import BackboneError
from ..families import NAFLEX, refuse_unserved
from . import siglip
from .containers import read_json
from .shapes import LAYOUTS, Described, claimed, refuse, stacked

log = logging.getLogger("daptune")

CONFIG = "config.json"
PROCESSOR, PREPROCESSOR = "processor_config.json", "preprocessor_config.json"
"""Where the image transform stands: from transformers 5 on as a part of the first, which has priority."""
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
MODELS = ("clip", "siglip", "metaclip_2")
"""What `model_type` may say."""
MARK = "text_model.embeddings.token_embedding.weight"
_FACTS = LAYOUTS["transformers"]
_NAMES, _IN_BLOCK = _FACTS["names"], _FACTS["in_block"]  # theirs -> OpenAI's, outside the blocks and within
_BLOCK = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def rename(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """transformers' names -> OpenAI's; an unknown name stays, for the check that follows to name it."""
    renamed: dict[str, Tensor] = {}
    fused: dict[tuple[str, str], dict[str, Tensor]] = {}  # by OpenAI's name and theirs
    for name, tensor in tensors.items():
        if match := _BLOCK.fullmatch(name):
            tower, layer, part, kind = match.groups()
            block = f"{'visual.' if tower == 'vision' else ''}transformer.resblocks.{layer}"
            if part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
                theirs = f"{tower}_model.encoder.layers.{layer}.self_attn.{{}}_proj.{kind}"
                fused.setdefault((f"{block}.attn.in_proj_{kind}", theirs), {})[part[10]] = tensor
            else:
                renamed[f"{block}.{_IN_BLOCK.get(part, part)}.{kind}"] = tensor
            continue
        stem, _, kind = name.rpartition(".")
        new = _NAMES.get(name) or (f"{_NAMES[stem]}.{kind}" if stem in _NAMES else name)
        renamed[new] = tensor.t() if name.endswith("_projection.weight") and tensor.ndim == 2 else tensor
    return renamed | {name: stacked(parts, "qkv", theirs, where) for (name, theirs), parts in fused.items()}


def read(tensors: Mapping[str, Tensor], folder: Path, where: str) -> Described:
    """What a folder with a CLIPModel's `config.json` says; BackboneError for other models."""
    source = folder / CONFIG
    content = read_json(source)
    refuse_model(content, where)
    if content["model_type"] == "siglip":
        return siglip.of_transformers(rename(tensors, where), content, _transform(folder, "SigLIP"), where, source)
    # the older `text_config_dict`, where a file has it, counts more (transformers' CLIPConfig)
    text, vision = (
        (content.get(f"{tower}_config") or {}) | (content.get(f"{tower}_config_dict") or {})
        for tower in ("text", "vision")
    )
    activations = {part.get("hidden_act", "quick_gelu") for part in (text, vision)}
    epsilons = {part.get("layer_norm_eps", 1e-5) for part in (text, vision)}
    if activations not in ({"quick_gelu"}, {"gelu"}):
        raise refuse(where, f"a CLIP with the activation {' and '.join(sorted(map(str, activations)))}")
    if epsilons != {1e-5}:
        raise refuse(where, f"a CLIP with layer_norm_eps {epsilons}")
    multilingual = content["model_type"] == "metaclip_2"
    return Described(
        rename(tensors, where),
        family="metaclip2" if multilingual else "clip",
        eos_id=int(text.get("eos_token_id", 2)) if multilingual else None,
        activation=activations.pop(),
        vision_heads=vision.get("num_attention_heads", 12),
        text_heads=text.get("num_attention_heads", 8),
        claims=claimed(_FACTS["claims"], model=content, vision=vision, text=text),
        transform=_transform(folder),
        source=str(source),
    )


def refuse_model(content: Mapping[str, Any], where: str) -> None:
    """Raise BackboneError for a `config.json` of another model, by its own word for itself."""
    kind = content.get("model_type")
    if kind in MODELS:
        return
    if kind == "siglip2":
        raise NAFLEX.refusal(where)
    refuse_unserved(kind, where)
    if "architecture" in content:
        raise refuse(where, f"timm's {content['architecture']}, a vision network alone")
    raise refuse(where, f"a {kind} model" if kind else f"no CLIPModel of transformers (no model_type in {CONFIG})")


def _transform(folder: Path, usual: str = "OpenAI's CLIP") -> dict[str, Any]:
    """The image processor's settings; the usual ones, with a warning, where there are none.

    Raises BackboneError for a transform that `Preprocess` cannot do, as transformers' CLIPImageProcessor would.
    """
    fallback = siglip.DEFAULTS if usual == "SigLIP" else {}
    source, values = _image_processor(folder)
    if values is None:
        log.warning(
            f"{folder} has no {PREPROCESSOR}: images are resized and normalised as {usual} does it; if the model "
            "was trained otherwise, its answers are wrong."
        )
        return dict(fallback)
    resample, target, crop = values.get("resample", 3), values.get("size"), _side(values.get("crop_size"))
    squash = "shortest_edge" not in target if isinstance(target, Mapping) else bool(fallback)  # {"height", "width"}
    if resample not in _RESAMPLE:
        raise BackboneError(f"{source}: resample must be 2 (bilinear) or 3 (bicubic), found {resample!r}.")
    left_out = [name for name in ("do_resize", "do_rescale") if values.get(name) is False]
    if not squash and values.get("do_center_crop") is False:
        left_out.append("do_center_crop")
    if left_out:
        raise BackboneError(f"{source}: {left_out[0]} is false; only images of one size, scaled to 0..1, can be used.")
    if not squash and None not in (crop, _side(target)) and crop != _side(target):
        raise BackboneError(f"{source}: a crop of {crop} from a shorter side of {_side(target)}; both must be equal.")
    if abs(values.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-6:
        raise BackboneError(f"{source}: rescale_factor must be 1/255, found {values['rescale_factor']!r}.")
    given = {"mean": values.get("image_mean"), "std": values.get("image_std")}
    if values.get("do_normalize") is False:
        given = {"mean": [0, 0, 0], "std": [1, 1, 1]}
    return (
        dict(fallback)
        | {"interpolation": _RESAMPLE[resample], "resize": "squash" if squash else "shortest"}
        | {key: value for key, value in given.items() if value is not None}
    )


def _image_processor(folder: Path) -> tuple[Path, Mapping[str, Any] | None]:
    """The file with the settings of transformers' image processor, and they themselves."""
    whole = folder / PROCESSOR
    part = read_json(whole).get("image_processor") if whole.is_file() else None
    if isinstance(part, Mapping):
        return whole, part
    source = folder / PREPROCESSOR
    return source, read_json(source) if source.is_file() else None


def _side(size: Any) -> int | None:
    """Pixels of a `size` or `crop_size`: a number, {"shortest_edge"}, or {"height", "width"}."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge", size.get("height"))
    return size if isinstance(size, int) else None
