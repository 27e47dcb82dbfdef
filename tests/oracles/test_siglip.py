"""SigLIP's features equal those of open_clip and transformers on made-up weights, within 1e-5 in float32."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from daptune.clip.backbone import Backbone, load_backbone
from daptune.clip.suffixes import Suffixes

from ..clip.made_up_siglip import SIGLIP, make_tensors, openclip_config, to_openclip, write_openclip, write_transformers
from .conftest import oracle

TOLERANCE = 1e-5
TEXTS = ["a photo of a cat", "dog", "a very long boeing 737 800 of a naive cafe"]
NAMES = ["cat", "sea lake", "boeing 737 800", "naive cafe"]


def images(seed: int = 1) -> Tensor:
    return torch.randn(3, 3, SIGLIP.image_size, SIGLIP.image_size, generator=torch.Generator().manual_seed(seed))


def close(title: str, ours: Tensor, theirs: Tensor) -> None:
    difference = float((ours - theirs).abs().max())
    print(f"{title}: {difference:.1e} of {theirs.abs().max():.1f}")
    assert difference < TOLERANCE * max(1.0, float(theirs.abs().max()))


@pytest.fixture
def theirs(tmp_path: Path) -> Any:
    """transformers' SiglipModel of a folder that we wrote."""
    transformers = oracle("transformers")
    folder = write_transformers(tmp_path, make_tensors())
    return transformers.SiglipModel.from_pretrained(folder).eval(), load_backbone(folder, precision="fp32")


@torch.no_grad()
def test_transformers(theirs: tuple[Any, Backbone], tmp_path: Path) -> None:
    model, backbone = theirs
    assert backbone.clip.config == SIGLIP
    ids = backbone.tokenizer(TEXTS)
    assert ids.shape == (3, 64)
    answer = model(input_ids=ids, pixel_values=images(), attention_mask=None)
    vision = model.vision_model(images()).pooler_output
    close("transformers, image", backbone.clip.encode_image(images()), vision)
    close("transformers, text", backbone.clip.encode_text(ids), model.text_model(input_ids=ids).pooler_output)
    z = F.normalize(backbone.clip.encode_image(images()), dim=-1)
    w = F.normalize(backbone.clip.encode_text(ids), dim=-1)
    clip = backbone.clip
    close("transformers, logits", clip.logit_scale.exp() * z @ w.mT + clip.logit_bias, answer.logits_per_image)
    model.save_pretrained(tmp_path / "again")  # their own file
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (tmp_path / "again" / name).write_bytes((tmp_path / name).read_bytes())
    again = load_backbone(tmp_path / "again", precision="fp32").clip
    assert torch.equal(again.encode_image(images()), clip.encode_image(images()))


@torch.no_grad()
def test_learned_context_in_transformers(theirs: tuple[Any, Backbone]) -> None:
    """Their encoder on [context | name | </s> | pads], with the first two rows replaced before block 1."""
    model, backbone = theirs
    context, deep = torch.randn(2, 5, 48), torch.randn(1, 2, 48)
    suffixes = Suffixes.build(backbone.tokenizer, NAMES, 5)
    text, table = model.text_model, model.text_model.embeddings
    for layers in (None, deep):
        rows = []
        for one in context:
            for name in NAMES:
                ids = [*backbone.tokenizer.encode(name), 1]
                padded = torch.tensor(ids + [1] * (59 - len(ids)))
                x = torch.cat([one, table.token_embedding(padded)]) + table.position_embedding.weight
                for depth, layer in enumerate(text.encoder.layers):
                    if layers is not None and depth == 1:
                        x = torch.cat([layers[0], x[2:]])
                    x = layer(x[None], attention_mask=None)[0]
                    x = x[0] if x.dim() == 3 else x
                rows.append(text.head(text.final_layer_norm(x)[-1]))
        close(
            "transformers, context",
            backbone.clip.text.features(context, suffixes, layers),
            torch.stack(rows).unflatten(0, (2, 4)),
        )


@torch.no_grad()
@pytest.mark.parametrize("pooled", [True, False])
def test_visual_tokens_in_transformers(theirs: tuple[Any, Backbone], pooled: bool) -> None:
    """Their blocks on [patches | tokens], the tokens replaced before block 1, the head over all or over the patches."""
    model, backbone = theirs
    prompts, vision = torch.randn(2, 4, 96), model.vision_model
    x = torch.cat([vision.embeddings(images()), prompts[0].expand(3, -1, -1)], 1)
    for depth, layer in enumerate(vision.encoder.layers):
        if depth == 1:
            x = torch.cat([x[:, :-4], prompts[1].expand(3, -1, -1)], 1)
        x = layer(x, attention_mask=None)
        x = x if isinstance(x, Tensor) else x[0]
    x = vision.post_layernorm(x)
    expected = vision.head(x if pooled else x[:, :16])
    close("transformers, visual tokens", backbone.clip.encode_image(images(), prompts, pool_prompts=pooled), expected)


@torch.no_grad()
def test_patch_features_are_the_head_of_one_token(theirs: tuple[Any, Backbone]) -> None:
    model, backbone = theirs
    vision = model.vision_model
    x = vision(images()).last_hidden_state
    expected = torch.stack([vision.head(x), *(vision.head(x[:, g : g + 1]) for g in range(16))], 1)
    close("transformers, patches", backbone.clip.encode_image(images(), patches=True), expected)


@torch.no_grad()
@pytest.mark.parametrize("generation", [1, 2])
def test_open_clip(generation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 1 computes GELU exactly in the text tower, version 2 by tanh."""
    open_clip, timm = oracle("open_clip"), oracle("timm")
    config = replace(SIGLIP, activation="gelu", text_activation="gelu" if generation == 1 else "gelu_tanh")
    settings = openclip_config(config)["model_cfg"]
    build, trunk = timm.create_model, {"embed_dim": 96, "depth": 3, "num_heads": 12, "img_size": 66}
    monkeypatch.setattr(timm, "create_model", lambda name, **options: build(name, **options | trunk))
    del settings["custom_text"]
    settings["text_cfg"] = {k: v for k, v in settings["text_cfg"].items() if "tokenizer" not in k}
    model = open_clip.model.CustomTextCLIP(**settings).eval()
    tensors = make_tensors(config, seed=2)
    model.load_state_dict(to_openclip(tensors))
    backbone = load_backbone(write_openclip(tmp_path, tensors, config), precision="fp32")
    assert backbone.clip.config == config
    ids = backbone.tokenizer(TEXTS)
    close("open_clip, image", backbone.clip.encode_image(images()), model.encode_image(images()))
    close("open_clip, text", backbone.clip.encode_text(ids), model.encode_text(ids))
    answer = model.get_logits(images(), ids)[0]
    z, w = (
        F.normalize(backbone.clip.encode_image(images()), dim=-1),
        F.normalize(backbone.clip.encode_text(ids), dim=-1),
    )
    close("open_clip, logits", backbone.clip.logit_scale.exp() * z @ w.mT + backbone.clip.logit_bias, answer)


def test_texts_are_canonicalised_as_open_clip_does_it() -> None:
    theirs = oracle("open_clip.tokenizer").get_clean_fn("canonicalize")
    from daptune.clip.file_tokenizer import canonical

    texts = [
        "A Photo of a sea_lake.",
        "caf&eacute;  !!",
        "don't STOP",
        "\u00dcber-Stra\u00dfe (3)",
        "!!!",
        "",
        " x\ty\n",
    ]
    texts += [f"a{chr(code)}b {chr(code)}" for code in range(0x3000)]
    assert [text for text in texts if canonical(text) != theirs(text)] == []
