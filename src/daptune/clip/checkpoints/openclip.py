"""open_clip's layout: `open_clip_config.json` beside weights under OpenAI's names.

The config is that of open_clip's model_configs (src/open_clip/model.py: CLIPVisionCfg, CLIPTextCfg) under "model_cfg",
and the transform under "preprocess_cfg". Every setting that would change the computation is looked at; one that these
towers do not have is refused by name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import BackboneError
from .containers import read_json
from .shapes import Described, refuse

CONFIG = "open_clip_config.json"
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_model.safetensors.index.json",
    "open_clip_pytorch_model.bin",
)
_ANY = object()


def _settings(any_value: str, off: str, **values: Any) -> dict[str, Any]:
    """Setting -> the value, or a tuple of the values, under which these towers compute the same."""
    return dict.fromkeys(any_value.split(), _ANY) | dict.fromkeys(off.split(), False) | values


_BLOCK = _settings(
    "layers width mlp_ratio",
    "final_ln_after_pool output_tokens qk_norm scaled_cosine_attn scale_heads scale_attn_inner scale_attn scale_fc",
    ls_init_value=None,
    block_type=("default", None),
    act_kwargs=(None, {}),
    norm_kwargs=(None, {}),
)
_VISION = _BLOCK | _settings(
    # patch_dropout is for training only
    "head_width patch_size image_size patch_dropout attn_pooler_queries attn_pooler_heads",
    "attentional_pool no_ln_pre input_patchnorm global_average_pool",
    pos_embed_type="learnable",
    pool_type="tok",
    timm_model_name=None,
)
_TEXT = _BLOCK | _settings(
    "context_length vocab_size heads pad_id eos_id",
    "embed_cls no_causal_mask proj_bias",
    hf_tokenizer_name=(None, ""),
    tokenizer_mode=(None, ""),
    tokenizer_kwargs=(None, {}),
    pool_type="argmax",
    proj=("linear", None),
    proj_type="linear",
    hf_model_name=(None, ""),
)
_MODEL = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale"}


def read(tensors: Mapping[str, Tensor], folder: Path, where: str) -> Described:
    """What a folder with an `open_clip_config.json` says; BackboneError for other towers."""
    source = folder / CONFIG
    content = read_json(source)
    model = _part(content, "model_cfg", source)
    vision, text = _part(model, "vision_cfg", source), _part(model, "text_cfg", source)
    _refuse_settings(model, vision, text, where)
    width, head_width = int(vision.get("width", 768)), int(vision.get("head_width", 64))
    claims = {
        "embed_dim": model.get("embed_dim"),
        "vision_width": width,
        "vision_layers": vision.get("layers", 12),
        "vision_mlp": int(width * vision.get("mlp_ratio", 4.0)),
        "image_size": vision.get("image_size", 224),
        "patch_size": vision.get("patch_size", 16),
        "text_width": text.get("width", 512),
        "text_layers": text.get("layers", 12),
        "text_mlp": int(text.get("width", 512) * text.get("mlp_ratio", 4.0)),
        "context_length": text.get("context_length", 77),
        "vocab_size": text.get("vocab_size", 49408),
    }
    return Described(
        tensors,
        activation="quick_gelu" if model.get("quick_gelu") else "gelu",
        vision_heads=max(1, width // head_width),
        text_heads=int(text.get("heads", 8)),
        claims=claims,
        transform=_transform(content.get("preprocess_cfg") or {}),
        source=str(source),
    )


def _part(content: Mapping[str, Any], key: str, source: Path) -> Mapping[str, Any]:
    part = content.get(key)
    if not isinstance(part, Mapping):
        raise BackboneError(f"{source} lacks {key!r}: it is no open_clip config; fetch the checkpoint again.")
    return part


def _refuse_settings(model: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any], where: str) -> None:
    """Raise BackboneError for towers that compute otherwise, by their settings."""
    if "multimodal_cfg" in model or vision.get("attentional_pool"):
        raise refuse(where, "a CoCa model")
    if isinstance(vision.get("layers"), list | tuple):
        raise refuse(where, "a CLIP with a residual network as its vision tower")
    if "init_logit_bias" in model:
        raise refuse(where, "a SigLIP model")
    if name := vision.get("timm_model_name"):
        raise refuse(where, f"an open_clip model whose vision tower is timm's {name}")
    if name := text.get("hf_model_name"):
        raise refuse(where, f"an open_clip model whose text tower is Hugging Face's {name}")
    for title, part, known in (("vision_cfg", vision, _VISION), ("text_cfg", text, _TEXT)):
        for key, value in part.items():
            if key not in known and key.startswith(("timm_", "hf_")):
                continue  # of no effect without a timm or Hugging Face tower
            allowed = known.get(key, ())
            if allowed is not _ANY and value not in (allowed if isinstance(allowed, tuple) else (allowed,)):
                raise refuse(where, f"an open_clip model with {title}.{key} = {value!r}")
    if unknown := sorted(model.keys() - _MODEL):
        raise refuse(where, f"an open_clip model with the setting {unknown[0]} = {model[unknown[0]]!r}")


def _transform(values: Mapping[str, Any]) -> dict[str, Any]:
    named = {"mean": "mean", "std": "std", "resize": "resize_mode", "interpolation": "interpolation"}
    return {field: values[key] for field, key in named.items() if values.get(key) is not None}
