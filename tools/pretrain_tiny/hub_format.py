"""The Hugging Face CLIPModel folder: names of the tensors, `config.json`, `preprocessor_config.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from model import CLIPConfig

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
