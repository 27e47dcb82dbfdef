"""Made-up CLIPs whose image tower is one of timm's in open_clip's layout: EVA02, and PE-Core, also in Meta's own."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from daptune.clip.model import CLIP, CLIPConfig

PE = CLIPConfig(
    embed_dim=40, image_size=48, patch_size=16, vision_width=192, vision_layers=3, vision_heads=3, vision_mlp=768,
    context_length=32, vocab_size=49408, text_width=128, text_layers=2, text_heads=2, text_mlp=512,
    activation="gelu", family="pe",
)  # fmt: skip
"""T/16 with fewer layers and a smaller image; the joint embedding is narrower than both towers."""
BARE = replace(PE, class_token=False, vision_heads=16, vision_mlp=8960 * 192 // 1536)
"""As G/14: 16 heads, no class token, and an MLP that is not four times as wide."""
EVA = replace(
    PE, family="eva", vision_width=96, vision_heads=12, vision_mlp=256, context_length=77, norm_eps=1e-6
)  # fmt: skip
"""Heads of B/16, but 8 wide; places of 3 x 3 patches are scaled to 16 x 16."""
TRUNKS = {
    3: "vit_pe_core_tiny_patch16_384", 16: "vit_pe_core_gigantic_patch14_448", 12: "eva02_base_patch16_clip_224",
}  # fmt: skip
"""By the number of heads."""
MAP_NAMES = (
    ("transformer.resblocks", "blocks"), ("attn.in_proj_", "attn.qkv."), ("head.attn.qkv.", "head.attn.in_proj_"),
    ("head.attn.out_proj", "attn_pool.proj"), ("attn.out_proj", "attn.proj"), ("ln_1", "norm1"), ("ln_2", "norm2"),
    ("ln_pre", "norm_pre"), ("ln_post", "norm"), ("head.ln", "attn_pool.norm"), ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"), ("conv1", "patch_embed.proj"), ("head.probe", "attn_pool.latent"),
    ("head.mlp", "attn_pool.mlp"),
)  # fmt: skip
GATED_NAMES = (
    ("mlp.c_gate", "mlp.fc1_g"), ("mlp.c_fc", "mlp.fc1_x"), ("mlp.ln", "mlp.norm"), ("attn.ln", "attn.norm"),
)  # fmt: skip


def make_tensors(config: CLIPConfig = PE, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of usual sizes, under OpenAI's names; the projection has a bias."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, value in CLIP(config).state_dict().items():
        scale = 1.0 if "embedding" in name or "probe" in name else value.shape[-1] ** -0.5 if value.ndim > 1 else 0.1
        one = name.endswith("weight") and name.split(".")[-2].startswith("ln")
        tensors[name] = torch.randn(value.shape, generator=generator) * scale + one
    tensors["token_embedding.weight"] *= 0.3
    for name in tensors:
        if config.family == "eva" and name.startswith("visual.") and name.endswith("in_proj_bias"):
            tensors[name].chunk(3)[1].zero_()  # keys have none
    return tensors | {"logit_scale": torch.tensor(4.0)}


def openclip_config(config: CLIPConfig = PE) -> dict[str, Any]:
    """`open_clip_config.json`: the trunk's name says its sizes."""
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim, "custom_text": True,
            "vision_cfg": {
                "image_size": config.image_size, "timm_model_name": TRUNKS[config.vision_heads],
                "timm_model_pretrained": False, "timm_proj": None,
                "timm_pool": "token" if config.family == "eva" else "map",
            },
            "text_cfg": {
                "context_length": config.context_length, "vocab_size": config.vocab_size, "width": config.text_width,
                "heads": config.text_heads, "layers": config.text_layers,
            },
        },
        "preprocess_cfg": {
            "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash",
        } if config.family == "pe" else {},
    }  # fmt: skip


def to_openclip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's names -> open_clip's with a timm trunk, written apart from the reader's table."""
    out: dict[str, Tensor] = {}
    gated = any(".c_gate." in name for name in tensors)
    for name, tensor in tensors.items():
        if not name.startswith("visual."):
            out[name if name == "logit_scale" else f"text.{name}"] = tensor
            continue
        own, trunk = name.removeprefix("visual."), "visual.trunk."
        if own.startswith("head.attn.in_proj"):
            kind, third = own.rpartition("_")[2], len(tensor) // 3
            out[f"{trunk}attn_pool.q.{kind}"] = tensor[:third].clone()
            out[f"{trunk}attn_pool.kv.{kind}"] = tensor[third:].clone()
        elif own == "class_embedding":
            out[f"{trunk}cls_token"] = tensor[None, None].clone()
        elif own == "positional_embedding":
            out[f"{trunk}pos_embed"] = tensor[None].clone()
        elif own == "proj":
            out[f"{trunk}head.weight"] = tensor.t().contiguous()
        elif own == "proj_bias":
            out[f"{trunk}head.bias"] = tensor
        elif gated and "in_proj" in own:
            block, kind = own.removeprefix("transformer.res").partition(".attn")[0], own.rpartition("_")[2]
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                if (letter, kind) != ("k", "bias"):
                    out[f"{trunk}{block}.attn.{letter}_proj.{kind}"] = third.clone()
        else:
            for ours, theirs in (GATED_NAMES if gated else ()) + MAP_NAMES:
                own = own.replace(ours, theirs)
            out[f"{trunk}{own}"] = tensor
    return out


def write_openclip(folder: Path, tensors: Mapping[str, Tensor], config: CLIPConfig = PE) -> Path:
    """An open_clip folder; the tokenizer is CLIP's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(openclip_config(config)))
    save_file(to_openclip(tensors), folder / "open_clip_model.safetensors")
    return folder


def write_meta(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Meta's own file of a PE-Core, whose projection has no bias."""
    theirs = {}
    for name, tensor in tensors.items():
        own = name.replace("visual.head.ln.", "visual.attn_pool.layernorm.")
        theirs[own.replace("visual.head.", "visual.attn_pool.")] = tensor
    del theirs["visual.proj_bias"]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(theirs, path)
    return path
