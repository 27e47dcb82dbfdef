"""Write a training checkpoint as a Hugging Face CLIPModel folder with fp16 weights, and check that it reads back."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from evaluate import load, tokenize
from model import CLIPConfig
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
TOP = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
}


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names of transformers' CLIPModel, in fp16."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in TOP:
            out[TOP[name]] = tensor.T if name in ("text_projection", "visual.proj") else tensor
            continue
        tower, _, rest = name.partition("transformer.resblocks.")
        layer, _, rest = rest.partition(".")
        root = f"{'vision' if tower else 'text'}_model.encoder.layers.{layer}."
        stem, _, kind = rest.rpartition(".")
        if stem == "attn":  # in_proj_weight, in_proj_bias
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                out[f"{root}self_attn.{letter}_proj.{kind.removeprefix('in_proj_')}"] = part
        else:
            out[f"{root}{BLOCK[stem]}.{kind}"] = tensor
    return {name: tensor.half().contiguous().clone() for name, tensor in out.items()}


def config_of(sizes: CLIPConfig) -> dict[str, object]:
    """Return `config.json`."""
    text = {
        "model_type": "clip_text_model",
        "hidden_size": sizes.transformer_width,
        "hidden_act": "gelu",
        "intermediate_size": 4 * sizes.transformer_width,
        "num_hidden_layers": sizes.transformer_layers,
        "num_attention_heads": sizes.transformer_heads,
        "max_position_embeddings": sizes.context_length,
        "vocab_size": sizes.vocab_size,
        "bos_token_id": sizes.vocab_size - 2,
        "eos_token_id": sizes.vocab_size - 1,
        "pad_token_id": 0,
        "layer_norm_eps": 1e-5,
        "projection_dim": sizes.embed_dim,
    }
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": sizes.vision_width,
        "hidden_act": "gelu",
        "intermediate_size": 4 * sizes.vision_width,
        "num_hidden_layers": sizes.vision_layers,
        "num_attention_heads": sizes.vision_heads,
        "image_size": sizes.image_resolution,
        "num_channels": 3,
        "patch_size": sizes.vision_patch_size,
        "layer_norm_eps": 1e-5,
        "projection_dim": sizes.embed_dim,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": sizes.embed_dim,
        "logit_scale_init_value": 4.6052,
        "text_config": text,
        "vision_config": vision,
    }


def preprocessor(size: int) -> dict[str, object]:
    """Return `preprocessor_config.json`."""
    return {
        "do_resize": True,
        "do_center_crop": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_convert_rgb": True,
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "CLIPImageProcessor",
    }


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
