"""MetaCLIP 2's features equal those of open_clip and transformers on made-up weights, within 1e-5 in float32."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from daptune.clip.backbone import load_backbone
from daptune.clip.suffixes import Suffixes

from ..clip.made_up_metaclip2 import METACLIP2, make_tensors, write_openclip, write_transformers
from .conftest import oracle

TOLERANCE = 1e-5
TEXTS = ["a photo of a Cat.", "", "собака", "猫 猫 猫 lake zzz </s> 3"]
NAMES = ["Cat", "sea lake", "собака"]


def close(title: str, ours: Tensor, theirs: Tensor) -> None:
    difference = float((ours - theirs).abs().max())
    print(f"{title}: {difference:.1e} of {theirs.abs().max():.1f}")
    assert difference < TOLERANCE * max(1.0, float(theirs.abs().max()))


def compare(title: str, folder: Path, image: Any, text: Any) -> None:
    """`image` and `text` are theirs of pixels and of ids; texts also with a learned context before the names."""
    backbone = load_backbone(folder, precision="fp32")
    assert backbone.clip.config == METACLIP2
    clip, tokenizer = backbone.clip, backbone.tokenizer
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ids = tokenizer(TEXTS)
    assert [row[0] for row in ids.tolist()] == [0] * 4 and (ids == 2).sum(1).tolist() == [1] * 4
    close(f"{title}, image", clip.encode_image(pixels), image(pixels))
    close(f"{title}, text", clip.encode_text(ids), text(ids))
    words = tokenizer.encode("a photo of a")
    context = clip.text.embed(words)[None]
    found = clip.text.features(context, Suffixes.build(tokenizer, NAMES, len(words)))[0]
    close(f"{title}, context", found, text(tokenizer([f"a photo of a {name}." for name in NAMES])))


@torch.no_grad()
def test_transformers(tmp_path: Path) -> None:
    transformers = oracle("transformers")
    folder = write_transformers(tmp_path, make_tensors(METACLIP2, seed=3))
    model = transformers.MetaClip2Model.from_pretrained(folder).eval()
    compare(
        "transformers",
        folder,
        lambda pixels: model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output),
        lambda ids: model.text_projection(model.text_model(input_ids=ids).pooler_output),
    )
    model.save_pretrained(tmp_path / "again")  # their own file
    (tmp_path / "again" / "tokenizer.json").write_bytes((tmp_path / "tokenizer.json").read_bytes())
    assert load_backbone(tmp_path / "again").clip.config == METACLIP2


@torch.no_grad()
def test_open_clip(tmp_path: Path) -> None:
    tensors = make_tensors(METACLIP2, seed=4)
    folder = write_openclip(tmp_path, tensors)
    settings = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    model = oracle("open_clip").CLIP(**settings).eval()
    model.load_state_dict(tensors)
    compare("open_clip", folder, model.encode_image, model.encode_text)


def test_ids_are_those_of_transformers(tmp_path: Path) -> None:
    """Their tokenizer of the same file, ends and pads included; a text without the name of an end."""
    folder = write_transformers(tmp_path, make_tensors(METACLIP2))
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    theirs = oracle("transformers").PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **ends)
    texts = [text for text in TEXTS if "</s>" not in text] + ["Hund, chien & dog!", "A photo of a sea_lake."]
    expected = theirs(texts, padding="max_length", max_length=40, truncation=True).input_ids
    assert load_backbone(folder).tokenizer(texts).tolist() == expected
