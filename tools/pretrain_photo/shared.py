"""Parts of tools/pretrain_tiny that are used here as they are; both folders are plain scripts, so they load by path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parent.parent / "pretrain_tiny"


def part(name: str) -> ModuleType:
    """Return a script of pretrain_tiny that imports none of its neighbours."""
    full = f"pretrain_tiny_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, FOLDER / f"{name}.py")
        assert spec and spec.loader
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


model, optimise, vocab, hub_format = part("model"), part("optimise"), part("vocab"), part("hub_format")

SIZES = {
    "image_resolution": 64,
    "vision_patch_size": 8,
    "vision_width": 256,
    "vision_layers": 6,
    "vision_heads": 4,
    "transformer_width": 160,
    "transformer_layers": 4,
    "transformer_heads": 5,
    "embed_dim": 256,
    "context_length": 40,
    "vocab_size": 8000,
}
"""Sizes of `photo`: 7.4 million parameters, 15 MB in fp16."""
