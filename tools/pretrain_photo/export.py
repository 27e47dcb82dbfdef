"""Join both towers, write them as a Hugging Face CLIPModel folder with fp16 weights, and check that it reads back."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from shared import SIZES, hub_format, model
from texts import encode
from tokenizers import Tokenizer
from torch.nn import functional as F

from daptune import load_backbone


def joined(image: Path, text: Path) -> model.TinyCLIP:
    """Return the CLIP of the two checkpoints."""
    clip = model.TinyCLIP(model.CLIPConfig(**SIZES))
    state = torch.load(text, weights_only=True)["model"]
    state |= {f"visual.{k}": v for k, v in torch.load(image, weights_only=True)["visual"].items()}
    clip.load_state_dict(state)
    return clip.eval().requires_grad_(False)


def main() -> None:
    """Write the folder, then compare features through the package's loader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, required=True, help="image.pt")
    parser.add_argument("--text", type=Path, required=True, help="text.pt")
    parser.add_argument("--texts", type=Path, required=True, help="folder with tokenizer.json")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    clip = joined(options.image, options.text)
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(hub_format.renamed(clip.state_dict()), options.out / "model.safetensors", metadata={"format": "pt"})
    (options.out / "model.safetensors").chmod(0o644)
    sizes = hub_format.preprocessor(SIZES["image_resolution"])
    for name, content in (("config.json", hub_format.config_of(clip.config)), ("preprocessor_config.json", sizes)):
        (options.out / name).write_text(json.dumps(content, indent=2) + "\n")
    shutil.copy(options.texts / "tokenizer.json", options.out / "tokenizer.json")
    print(f"{sum(f.stat().st_size for f in options.out.iterdir()) / 1e6:.2f} MB in {options.out}")

    backbone = load_backbone(options.out, precision="fp32")
    side = SIZES["image_resolution"]
    images = torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(0))
    texts = ["a photo of a cat.", "a centered satellite photo of a forest.", "long sleeve", "Fiancée & co. 猫"]
    tokenizer = Tokenizer.from_file(str(options.out / "tokenizer.json"))
    ids, ours = encode(tokenizer, texts, SIZES["context_length"]).long(), backbone.tokenizer(texts)
    print("token ids equal:", bool((ours == ids).all()), "scale:", round(float(backbone.clip.logit_scale.exp()), 2))
    for kind, theirs, mine in (
        ("image", backbone.clip.encode_image(images), clip.encode_image(images)),
        ("text", backbone.clip.encode_text(ours), clip.encode_text(ids)),
    ):
        print(f"largest difference, {kind}: {float((F.normalize(theirs.float(), dim=-1) - mine).abs().max()):.1e}")


if __name__ == "__main__":
    main()
