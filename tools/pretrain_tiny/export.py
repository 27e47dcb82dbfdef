"""Write a training checkpoint as a Hugging Face CLIPModel folder with fp16 weights, and check that it reads back."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from evaluate import load, tokenize
from hub_format import config_of, preprocessor, renamed
from safetensors.torch import save_file
from tokenizers import Tokenizer


def main() -> None:
    """Write the folder, then compare features through the package's loader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = load(options.checkpoint)
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(renamed(model.state_dict()), options.out / "model.safetensors", metadata={"format": "pt"})
    (options.out / "model.safetensors").chmod(0o644)
    (options.out / "config.json").write_text(json.dumps(config_of(model.config), indent=2) + "\n")
    sizes = preprocessor(model.config.image_resolution)
    (options.out / "preprocessor_config.json").write_text(json.dumps(sizes, indent=2) + "\n")
    shutil.copy(options.folder / "tokenizer.json", options.out / "tokenizer.json")
    print(f"{sum(f.stat().st_size for f in options.out.iterdir()) / 1e6:.2f} MB in {options.out}")

    from daptune import load_backbone

    backbone = load_backbone(options.out, precision="fp32")
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, model.config.image_resolution, model.config.image_resolution, generator=generator)
    texts = ["a picture of a cat.", "a drawing of a red apple.", "the digit 7", "Zebra crossing, fiancée & co."]
    ids = tokenize(Tokenizer.from_file(str(options.out / "tokenizer.json")), texts, model.config.context_length)
    ours = backbone.tokenizer(texts)
    image = torch.nn.functional.normalize(backbone.clip.encode_image(images).float(), dim=-1)
    text = torch.nn.functional.normalize(backbone.clip.encode_text(ours).float(), dim=-1)
    scale = round(float(backbone.clip.logit_scale.exp()), 2)
    print("token ids equal:", bool((ours == ids).all()), "logit scale:", scale)
    far = [float((a - b).abs().max()) for a, b in ((image, model.encode_image(images)), (text, model.encode_text(ids)))]
    print(f"largest difference: image {far[0]:.1e}, text {far[1]:.1e}")


if __name__ == "__main__":
    main()
