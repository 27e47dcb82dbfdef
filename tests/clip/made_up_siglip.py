"""Made-up SigLIPs, written in both layouts that checkpoints come in, with made-up tokenizers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer as Engine
from tokenizers import models, normalizers, pre_tokenizers
from torch import Tensor

from daptune.clip.model import CLIP, CLIPConfig

SIGLIP = CLIPConfig(
    embed_dim=96, image_size=66, patch_size=16, vision_width=96, vision_layers=3, vision_heads=12, vision_mlp=384,
    context_length=64, vocab_size=1200, text_width=48, text_layers=3, text_heads=3, text_mlp=192,
    activation="gelu_tanh", text_activation="gelu_tanh", norm_eps=1e-6, family="siglip",
)  # fmt: skip
"""66 pixels leave 2 over; the text is narrower than the joint embedding."""
WORDS = ("a", "photo", "of", "cat", "sea", "lake", "boeing", "737", "800", "dog", "naive", "cafe", "very", "long")


def make_tensors(config: CLIPConfig = SIGLIP, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of usual sizes, under OpenAI's names."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, value in CLIP(config).state_dict().items():
        scale = 1.0 if "embedding" in name or "probe" in name else value.shape[-1] ** -0.5 if value.ndim > 1 else 0.1
        one = name.endswith("weight") and name.split(".")[-2] in ("ln", "ln_1", "ln_2", "ln_post", "ln_final")
        tensors[name] = torch.randn(value.shape, generator=generator) * scale + one
    return tensors | {"logit_scale": torch.tensor(4.0), "logit_bias": torch.tensor(-12.5)}


def write_tokenizer(path: Path, size: int = 1200, gemma: bool = False) -> Path:
    """A unigram model as SigLIP's, or byte pairs as Gemma's, that knows WORDS and letters and has `size` pieces."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"] if gemma else ["<unk>", "</s>"]
    letters = [chr(code) for code in range(97, 123)] + [chr(code) for code in range(48, 58)]
    pieces = [*special, "\u2581", *letters, *("\u2581" + word for word in WORDS)]
    pieces += [f"<extra{number}>" for number in range(size - len(pieces))]
    if gemma:
        merges, known = [], dict.fromkeys(pieces[: -len(WORDS)])
        engine = Engine(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
        engine.normalizer = normalizers.Replace(" ", "\u2581")
        assert known
    else:
        scores = [0.0, 0.0, *(-10.0 if len(piece) == 1 else -3.0 for piece in pieces[2:])]
        engine = Engine(models.Unigram(list(zip(pieces, scores, strict=True)), 0, False))
        engine.pre_tokenizer = pre_tokenizers.Metaspace()
    path.parent.mkdir(parents=True, exist_ok=True)
    engine.save(str(path))
    return path


def to_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's names -> transformers', written apart from the reader's table."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tower, own = (
            ("vision_model", name.removeprefix("visual.")) if name.startswith("visual.") else ("text_model", name)
        )
        stem, _, kind = own.rpartition(".")
        if own.startswith("logit_"):
            out[name] = tensor.reshape(1)
        elif own.startswith("transformer.resblocks."):
            layer, _, part = stem.removeprefix("transformer.resblocks.").partition(".")
            block = f"{tower}.encoder.layers.{layer}"
            if "in_proj" in own:
                kind = own.rpartition("_")[2]
                for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                    out[f"{block}.self_attn.{letter}_proj.{kind}"] = third.clone()
            else:
                part = {
                    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
                    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
                }[part]  # fmt: skip
                out[f"{block}.{part}.{kind}"] = tensor
        elif own == "positional_embedding":
            out[f"{tower}.embeddings.position_embedding.weight"] = tensor
        elif own.startswith("head.attn.in_proj"):
            out[f"{tower}.head.attention.{own.rpartition('.')[2]}"] = tensor
        elif own == "head.probe":
            out[f"{tower}.head.probe"] = tensor
        else:
            stem = {
                "conv1": "embeddings.patch_embedding", "ln_post": "post_layernorm", "ln_final": "final_layer_norm",
                "token_embedding": "embeddings.token_embedding", "text_projection": "head",
                "head.attn.out_proj": "head.attention.out_proj", "head.ln": "head.layernorm",
                "head.mlp.c_fc": "head.mlp.fc1", "head.mlp.c_proj": "head.mlp.fc2",
            }[stem]  # fmt: skip
            out[f"{tower}.{stem}.{kind}"] = tensor
    return out


def transformers_config(config: CLIPConfig = SIGLIP) -> dict[str, Any]:
    """`config.json` of a SiglipModel, without what equals its defaults."""
    text = {
        "hidden_size": config.text_width, "intermediate_size": config.text_mlp, "vocab_size": config.vocab_size,
        "num_hidden_layers": config.text_layers, "num_attention_heads": config.text_heads,
        "max_position_embeddings": config.context_length, "projection_size": config.embed_dim,
    }  # fmt: skip
    vision = {
        "hidden_size": config.vision_width, "intermediate_size": config.vision_mlp, "image_size": config.image_size,
        "num_hidden_layers": config.vision_layers, "num_attention_heads": config.vision_heads,
        "patch_size": config.patch_size,
    }  # fmt: skip
    defaults = {"num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 16, "max_position_embeddings": 64}
    sparse = [{k: v for k, v in part.items() if defaults.get(k) != v} for part in (text, vision)]
    return {"model_type": "siglip", "text_config": sparse[0], "vision_config": sparse[1]}


def write_transformers(folder: Path, tensors: Mapping[str, Tensor], config: CLIPConfig = SIGLIP) -> Path:
    """A transformers folder with tokenizer and image processor; bilinear, as google/siglip2's."""
    write_tokenizer(folder / "tokenizer.json", config.vocab_size)
    (folder / "config.json").write_text(json.dumps(transformers_config(config)))
    side = {"height": config.image_size, "width": config.image_size}
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": side, "resample": 2, "do_resize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    save_file(to_transformers(tensors), folder / "model.safetensors", {"format": "pt"})
    return folder


def openclip_config(config: CLIPConfig = SIGLIP) -> dict[str, Any]:
    """`open_clip_config.json` of a SigLIP of timm's B/16 trunk."""
    act = {"act_kwargs": {"approximate": "tanh"}} if config.text_activation == "gelu_tanh" else {}
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim, "init_logit_bias": -10, "custom_text": True,
            "vision_cfg": {
                "image_size": config.image_size, "timm_model_name": "vit_base_patch16_siglip_224",
                "timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none",
            },
            "text_cfg": {
                "context_length": config.context_length, "vocab_size": config.vocab_size, "width": config.text_width,
                "heads": config.text_heads, "layers": config.text_layers, "no_causal_mask": True, "proj_bias": True,
                "pool_type": "last", "norm_kwargs": {"eps": config.norm_eps},
                "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
                "tokenizer_kwargs": {"clean": "canonicalize"}, **act,
            },
        },
        "preprocess_cfg": {
            "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash",
        },
    }  # fmt: skip


def to_openclip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's names -> open_clip's with a timm trunk, written apart from the reader's table."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not name.startswith("visual."):
            out[name if name.startswith("logit_") else f"text.{name}"] = tensor
            continue
        own = name.removeprefix("visual.")
        if own.startswith("head.attn.in_proj"):
            kind = own.rpartition("_")[2]
            out[f"visual.trunk.attn_pool.q.{kind}"] = tensor[: len(tensor) // 3].clone()
            out[f"visual.trunk.attn_pool.kv.{kind}"] = tensor[len(tensor) // 3 :].clone()
            continue
        for ours, theirs in (
            ("transformer.resblocks", "blocks"), ("attn.in_proj_", "attn.qkv."), ("ln_1", "norm1"), ("ln_2", "norm2"),
            ("ln_post", "norm"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"), ("conv1", "patch_embed.proj"),
            ("positional_embedding", "pos_embed"), ("head.attn.out_proj", "attn_pool.proj"),
            ("head.ln", "attn_pool.norm"), ("head.probe", "attn_pool.latent"), ("head.mlp", "attn_pool.mlp"),
            ("attn.out_proj", "attn.proj"),
        ):  # fmt: skip
            own = own.replace(ours, theirs)
        out[f"visual.trunk.{own}"] = tensor.unsqueeze(0) if own == "pos_embed" else tensor
    return out


def write_openclip(folder: Path, tensors: Mapping[str, Tensor], config: CLIPConfig = SIGLIP) -> Path:
    """An open_clip folder with its tokenizer."""
    write_tokenizer(folder / "tokenizer.json", config.vocab_size)
    (folder / "open_clip_config.json").write_text(json.dumps(openclip_config(config)))
    save_file(to_openclip(tensors), folder / "open_clip_model.safetensors")
    return folder
