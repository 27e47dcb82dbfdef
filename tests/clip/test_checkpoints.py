"""Every layout gives the same tensors; every file that is no such CLIP gives one line, and runs nothing."""

import json
import logging
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from daptune.clip.checkpoints import Checkpoint, read_checkpoint
from daptune.clip.checkpoints.shapes import Described, sizes
from daptune.clip.model import CLIP, CLIPConfig
from daptune.errors import BackboneError

from . import made_up
from .made_up import SMALL, make_tensors, write_archive, write_huggingface, write_openclip


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return make_tensors()


def equal(checkpoint: Checkpoint, tensors: dict[str, Tensor], config: CLIPConfig = SMALL) -> None:
    assert checkpoint.config == config
    assert checkpoint.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert checkpoint.tensors[name].dtype == torch.float32
        torch.testing.assert_close(checkpoint.tensors[name], tensor.float(), rtol=0, atol=0, msg=name)
    CLIP(checkpoint.config).load_state_dict(checkpoint.tensors)


def one_line(path: Path, *words: str) -> str:
    with pytest.raises(BackboneError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


def test_openai_archive(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    checkpoint = read_checkpoint(write_archive(tmp_path / "ViT.pt", tensors))
    equal(checkpoint, tensors)
    assert checkpoint.preprocess.size == 32
    assert checkpoint.tokenizer is None


def test_openai_archive_in_half_precision(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    half = {name: tensor.half() for name, tensor in tensors.items()}
    equal(read_checkpoint(write_archive(tmp_path / "ViT.pt", half)), half)


@pytest.mark.parametrize("kind", ["plain", "wrapped", "old format", "sizes inside"])
def test_openai_state_dict(
    tmp_path: Path, tensors: dict[str, Tensor], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ViT.pt"
    if kind == "wrapped":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in tensors.items()}}, path)
    elif kind == "sizes inside":
        torch.save(tensors | {"input_resolution": torch.tensor(32), "transformer.attn_mask": torch.zeros(2, 2)}, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind != "old format")
    with caplog.at_level(logging.WARNING, "daptune"):
        equal(read_checkpoint(path), tensors)
    assert "QuickGELU" in caplog.text


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_openclip(tmp_path: Path, tensors: dict[str, Tensor], pickled: bool, activation: str) -> None:
    config = replace(SMALL, activation=activation)
    checkpoint = read_checkpoint(write_openclip(tmp_path, tensors, config, pickled))
    equal(checkpoint, tensors, config)
    assert checkpoint.preprocess.mean == (0.5, 0.5, 0.5)
    assert [file.suffix for file in checkpoint.files] == [".bin" if pickled else ".safetensors"]


def test_openclip_with_custom_text(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    own = {k if k.startswith(("visual", "logit")) else f"text.{k}": v for k, v in tensors.items()}
    equal(
        read_checkpoint(write_openclip(tmp_path, own, replace(SMALL, activation="gelu"))),
        tensors,
        replace(SMALL, activation="gelu"),
    )


@pytest.mark.parametrize(("shards", "pickled"), [(1, False), (3, False), (1, True)])
def test_huggingface(tmp_path: Path, tensors: dict[str, Tensor], shards: int, pickled: bool) -> None:
    checkpoint = read_checkpoint(write_huggingface(tmp_path, tensors, SMALL, shards, pickled))
    equal(checkpoint, tensors)
    assert len(checkpoint.files) == shards


def test_huggingface_transform(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    write_huggingface(tmp_path, tensors)
    values = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1], "resample": 2, "size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    preprocess = read_checkpoint(tmp_path).preprocess
    assert (preprocess.mean, preprocess.interpolation, preprocess.resize) == ((0.1, 0.2, 0.3), "bilinear", "squash")


def test_huggingface_transform_of_transformers_5(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """`save_pretrained` of a CLIPProcessor; where both files are, its part has priority, as in transformers."""
    write_huggingface(tmp_path, tensors)
    own = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.5, 0.5], "resample": 2, "do_center_crop": False}
    whole = {"image_processor": own | {"size": {"height": 32, "width": 32}}, "processor_class": "CLIPProcessor"}
    (tmp_path / "processor_config.json").write_text(json.dumps(whole))
    for _ in range(2):
        preprocess = read_checkpoint(tmp_path).preprocess
        assert (preprocess.mean, preprocess.std) == ((0.5, 0.4, 0.3), (0.5, 0.5, 0.5))
        assert (preprocess.interpolation, preprocess.resize) == ("bilinear", "squash")
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"resample": 3, "image_mean": [0, 0, 0]}))
    (tmp_path / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    assert read_checkpoint(tmp_path).preprocess.mean == (0, 0, 0)


def test_without_a_transform_it_is_said(
    tmp_path: Path, tensors: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    write_huggingface(tmp_path, tensors)
    assert read_checkpoint(tmp_path).preprocess.mean == (0.48145466, 0.4578275, 0.40821073)
    assert "no preprocessor_config.json" in caplog.text
    caplog.clear()
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    preprocess = read_checkpoint(tmp_path).preprocess
    assert (preprocess.mean, preprocess.std, caplog.text) == ((0, 0, 0), (1, 1, 1), "")


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"do_resize": False}, "do_resize is false"),
        ({"do_center_crop": False, "size": {"shortest_edge": 32}}, "do_center_crop is false"),
        (
            {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
            "a crop of 32 from a shorter side of 40",
        ),
        ({"size": 40, "crop_size": 32}, "a crop of 32 from a shorter side of 40"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor must be 1/255"),
        ({"resample": 0}, "resample must be 2"),
    ],
)
def test_a_transform_that_cannot_be_done(
    tmp_path: Path, tensors: dict[str, Tensor], values: dict[str, object], word: str
) -> None:
    write_huggingface(tmp_path, tensors)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    one_line(tmp_path, word)


def test_single_safetensors_file(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, tmp_path / "openai.safetensors")
    equal(read_checkpoint(tmp_path / "openai.safetensors"), tensors)
    save_file(made_up.to_huggingface(tensors), tmp_path / "hf.safetensors")
    equal(read_checkpoint(tmp_path / "hf.safetensors"), tensors)
    write_openclip(tmp_path / "beside", tensors, replace(SMALL, activation="gelu"))
    file = tmp_path / "beside" / "open_clip_model.safetensors"
    assert read_checkpoint(file).config.activation == "gelu"


def test_bfloat16_becomes_float32(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    short = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    equal(read_checkpoint(write_huggingface(tmp_path, short)), short)


SIZES = {  # width, layers, heads, mlp, patch, image; text width, heads, layers; D
    "ViT-B-32": (768, 12, 12, 3072, 32, 224, 512, 8, 12, 512),
    "ViT-B-16": (768, 12, 12, 3072, 16, 224, 512, 8, 12, 512),
    "ViT-L-14": (1024, 24, 16, 4096, 14, 224, 768, 12, 12, 768),
    "ViT-L-14-336": (1024, 24, 16, 4096, 14, 336, 768, 12, 12, 768),
    "ViT-H-14": (1280, 32, 16, 5120, 14, 224, 1024, 16, 24, 1024),
    "ViT-g-14": (1408, 40, 16, 6144, 14, 224, 1024, 16, 24, 1024),
    "ViT-bigG-14": (1664, 48, 16, 8192, 14, 224, 1280, 20, 32, 1280),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_the_published_models_from_shapes(name: str) -> None:
    width, layers, heads, mlp, patch, image, text, text_heads, text_layers, dim = SIZES[name]
    config = CLIPConfig(
        dim, image, patch, width, layers, heads, mlp, 77, 49408, text, text_layers, text_heads, 4 * text, "gelu"
    )
    with torch.device("meta"):
        shapes = CLIP(config).state_dict()
    assert sizes(Described(shapes, "gelu"), name) == config
    # open_clip's rounded mlp_ratio gives the width back
    ratio = {"ViT-g-14": 4.3637, "ViT-bigG-14": 4.9231}.get(name, 4.0)
    assert int(width * ratio) == mlp


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_no_code_is_run_from_a_pickle(tmp_path: Path) -> None:
    for new in (True, False):
        torch.save(
            {"a": torch.zeros(1), "b": Bomb(tmp_path / "ran")}, tmp_path / "x.pt", _use_new_zipfile_serialization=new
        )
        one_line(tmp_path / "x.pt", "run code", "safetensors")
    (tmp_path / "x.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    one_line(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def rewrite(archive: Path, entry: str, data: bytes) -> None:
    with zipfile.ZipFile(archive) as old:
        content = {info.filename: old.read(info) for info in old.infolist()}
    name = next(name for name in content if name.endswith(entry))
    with zipfile.ZipFile(archive, "w") as new:
        for key, value in (content | {name: data}).items():
            new.writestr(key, value)


def test_no_code_is_run_from_a_torchscript_archive(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = write_archive(tmp_path / "ViT.pt", tensors)
    rewrite(path, "/data.pkl", pickle.dumps(Bomb(tmp_path / "ran")))
    one_line(path, "mkdir", "not opened")
    rewrite(path, "/data.pkl", pickle.dumps(torch.load))
    one_line(path, "not opened")
    rewrite(path, "/data.pkl", b"\x80\x02nonsense.")
    one_line(path, "damaged")
    assert not (tmp_path / "ran").exists()


def test_storage_shorter_than_its_tensor(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = write_archive(tmp_path / "ViT.pt", tensors)
    rewrite(path, "/data/0", b"\0" * 4)
    one_line(path, "damaged")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git-lfs"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"hello, world", "found something else"),
        (b"PK\x03\x04 and nothing", "truncated"),
        (b"\x80\x02}q\x00.", "truncated or damaged"),
        ((64).to_bytes(8, "little") + b"{not json" + b" " * 80, "truncated or damaged"),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    one_line(path, word, str(path))


@pytest.mark.parametrize("kind", ["archive", "state dict", "old state dict", "safetensors", "shards"])
def test_truncated_files(tmp_path: Path, tensors: dict[str, Tensor], kind: str) -> None:
    path = tmp_path / "model.pt"
    if kind == "archive":
        write_archive(path, tensors)
    elif kind == "shards":
        write_huggingface(tmp_path, tensors, shards=2)
        path = tmp_path / "model-00002-of-00002.safetensors"
    elif kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "state dict")
    whole = path.read_bytes()
    for share in (0.01, 0.5, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        one_line(tmp_path if kind == "shards" else path, "fetch it again")


def test_shards(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    write_huggingface(tmp_path, tensors, shards=2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    one_line(tmp_path, "lacks the shard model-00002-of-00002.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    one_line(tmp_path, "outside its folder")
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    one_line(tmp_path, "JSON object")


def test_missing_unexpected_and_misshaped_tensors_are_named(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    wrong = dict(tensors)
    del wrong["ln_final.weight"]
    wrong["extra.weight"] = torch.zeros(2)
    wrong["visual.proj"] = torch.zeros(128, 25)
    write_openclip(tmp_path, wrong)
    one_line(
        tmp_path,
        "missing ln_final.weight",
        "unexpected extra.weight",
        "visual.proj (128, 25) instead of (128, 24)",
    )
    wrong = tensors | {"visual.proj": torch.zeros(128, 24, dtype=torch.int8)}
    one_line(write_openclip(tmp_path, wrong), "not of a floating type visual.proj")
    wrong = tensors | {"visual.proj": torch.full((128, 24), torch.nan)}
    one_line(write_openclip(tmp_path, wrong), "not finite", "visual.proj")


def test_a_config_of_another_model(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = (
        write_openclip(tmp_path, tensors, replace(SMALL, vision_layers=3, context_length=77)) / "open_clip_config.json"
    )
    one_line(tmp_path, "does not belong", "vision_layers 3 (the weights have 2)", "context_length 77")
    path.write_text(path.read_text().replace('"layers": 3', '"layers": [3, 4, 6, 3]'))
    one_line(tmp_path, "does not belong", "vision_layers [3, 4, 6, 3] (the weights have 2)")
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"vision_cfg": {"width": "wide"}, "text_cfg": {}}}')
    one_line(tmp_path)
    (tmp_path / "open_clip_config.json").write_text("{")
    one_line(tmp_path, "JSON")


@pytest.mark.parametrize(
    ("part", "setting", "word"),
    [
        (
            "vision_cfg",
            {"timm_model_name": "convnext_base"},
            "is a CLIP with a ConvNeXt or ViTamin, which is not served",
        ),
        ("vision_cfg", {"timm_model_name": "some_new_trunk"}, "timm's some_new_trunk; only"),
        ("vision_cfg", {"timm_model_name": "vit_pe_spatial_base_patch16_512"}, "is a Perception Encoder without"),
        ("vision_cfg", {"timm_model_name": "eva02_enormous_patch14_clip_224"}, "is an EVA01-CLIP, an EVA02-CLIP E/14"),
        ("vision_cfg", {"timm_model_name": "fastvit_mci1"}, "is a MobileCLIP"),
        ("vision_cfg", {"attentional_pool": True}, "CoCa"),
        ("vision_cfg", {"pool_type": "avg"}, "pool_type = 'avg'"),
        ("vision_cfg", {"no_ln_pre": True}, "no_ln_pre"),
        ("vision_cfg", {"norm_kwargs": {"eps": 1e-6}}, "norm_kwargs"),
        ("vision_cfg", {"something_new": 1}, "something_new"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "Hugging Face's (XLM-RoBERTa, RoBERTa"),
        ("text_cfg", {"hf_model_name": "some-new-bert"}, "Hugging Face's some-new-bert; only"),
        ("text_cfg", {"no_causal_mask": True}, "no_causal_mask"),
        ("text_cfg", {"hf_tokenizer_name": "bert-base"}, "hf_tokenizer_name"),
        (None, {"init_logit_bias": -10}, "SigLIP"),
        (None, {"multimodal_cfg": {}}, "CoCa"),
        (None, {"something_new": 1}, "something_new"),
    ],
)
def test_other_openclip_towers(
    tmp_path: Path, tensors: dict[str, Tensor], part: str | None, setting: dict[str, object], word: str
) -> None:
    write_openclip(tmp_path, tensors)
    path = tmp_path / "open_clip_config.json"
    content = json.loads(path.read_text())
    (content["model_cfg"][part] if part else content["model_cfg"]).update(setting)
    path.write_text(json.dumps(content))
    one_line(tmp_path, word)
    with pytest.raises(BackboneError, match=r"(try|take) (ViT|RN|PE|EVA02)[\w-]+/\w+"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "siglip"}, "SigLIP"),
        ({"model_type": "chinese_clip"}, "text tower is one of Hugging Face's (BERT"),
        ({"model_type": "blip"}, "a blip model"),
        ({"model_type": None, "architecture": "vit_base_patch16_clip_224"}, "timm's vit_base_patch16_clip_224"),
        ({"vision_config": {"hidden_act": "gelu_pytorch_tanh"}}, "gelu_pytorch_tanh"),
        ({"vision_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps"),
    ],
)
def test_other_huggingface_models(
    tmp_path: Path, tensors: dict[str, Tensor], change: dict[str, object], word: str
) -> None:
    write_huggingface(tmp_path, tensors)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    one_line(tmp_path, word)


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["visual.layer1.0.conv1.weight", "transformer.resblocks.0.ln_1.weight"], "lacks the tensor visual.attnpool"),
        (["visual.trunk.blocks.0.norm1.weight", "transformer.resblocks.0.ln_1.weight"], "timm trunk"),
        (["text_decoder.text_projection", "visual.conv1.weight"], "CoCa"),
        (["visual.attn_pool.query", "visual.conv1.weight"], "CoCa"),
        (["visual.attn_pool.probe", "visual.attn_pool.attn.in_proj_weight"], "lacks the tensor visual.proj"),
        (["logit_bias", "visual.conv1.weight"], "SigLIP"),
        (["vision_model.head.probe"], "SigLIP"),
        (["text.transformer.embeddings.weight", "visual.conv1.weight"], "text tower is one of Hugging Face's"),
        (["blocks.0.attn.qkv.weight", "cls_token"], "without a text tower"),
        (["visual.conv1.weight"], "a vision tower alone"),
        (["transformer.resblocks.0.ln_1.weight"], "a text tower alone"),
        (["weight", "bias"], "no CLIP (its first tensors are bias, weight)"),
        (["visual.conv1.weight", "transformer.resblocks.0.ln_1.weight"], "visual.conv1.weight should have 4"),
    ],
)
def test_other_models_by_their_names(tmp_path: Path, names: list[str], word: str) -> None:
    save_file({name: torch.zeros(2) for name in names}, tmp_path / "m.safetensors")
    one_line(tmp_path / "m.safetensors", word)


def test_folders_without_a_checkpoint(tmp_path: Path) -> None:
    one_line(tmp_path, "found weight files: none")
    one_line(tmp_path / "nowhere", "no file or folder")
    (tmp_path / "a.pt").touch()
    (tmp_path / "b.pt").touch()
    one_line(tmp_path, "a.pt, b.pt", "name the file")
