"""A made-up CLIP with a residual network of a few channels, with the batch norms that its files have."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from daptune.clip.model import CLIP, CLIPConfig

RESNET = CLIPConfig(
    embed_dim=24, image_size=64, patch_size=32, vision_width=128, vision_layers=5, vision_heads=2, vision_mlp=0,
    context_length=77, vocab_size=49408, text_width=64, text_layers=2, text_heads=1, text_mlp=256,
    family="resnet", vision_stages=(1, 2, 1, 1),
)  # fmt: skip
"""4 channels behind the stem, 2 x 2 places in the last map, stages of different depth."""


def make_tensors(config: CLIPConfig = RESNET, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under OpenAI's names; each convolution has a batch norm with a spread of statistics."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tensors: dict[str, Tensor] = {}
    for name, value in CLIP(config).state_dict().items():
        if value.ndim == 4:
            tensors[name] = normal(*value.shape) * value[0].numel() ** -0.5
        elif name.startswith("visual.") and "attnpool" not in name:  # the bias of a convolution: its batch norm
            stem = name.removesuffix(".bias")
            norm = stem.replace("downsample.0", "downsample.1").replace("conv", "bn")
            size = len(value)
            tensors |= {
                f"{norm}.weight": 1 + 0.2 * normal(size),
                f"{norm}.bias": 0.2 * normal(size),
                f"{norm}.running_mean": 0.3 * normal(size),
                f"{norm}.running_var": 0.4 + 0.5 * normal(size).abs(),
                f"{norm}.num_batches_tracked": torch.tensor(7),
            }
        else:
            scale = value.shape[-1] ** -0.5 if value.ndim > 1 else 0.1
            one = "ln_" in name and name.endswith("weight")
            tensors[name] = normal(*value.shape) * scale + one
    return tensors | {"logit_scale": torch.tensor(3.0)}


def openclip_config(config: CLIPConfig = RESNET) -> dict[str, Any]:
    """`open_clip_config.json` of a config."""
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim, "quick_gelu": config.activation == "quick_gelu",
            "vision_cfg": {
                "image_size": config.image_size, "layers": list(config.vision_stages),
                "width": config.vision_width // 32, "patch_size": None,
            },
            "text_cfg": {
                "context_length": config.context_length, "vocab_size": config.vocab_size, "width": config.text_width,
                "heads": config.text_heads, "layers": config.text_layers,
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    }  # fmt: skip


def write_openclip(folder: Path, tensors: Mapping[str, Tensor], config: CLIPConfig = RESNET) -> Path:
    """An open_clip folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(openclip_config(config)))
    save_file(dict(tensors), folder / "open_clip_model.safetensors")
    return folder
