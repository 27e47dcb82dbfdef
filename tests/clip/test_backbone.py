"""`load_backbone`: the same features from every layout, precision, identity, and clear refusals."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from daptune.clip import precision as precision_module
from daptune.clip.backbone import Backbone, load_backbone, resolve_precision, sha256_of
from daptune.clip.precision import cpu_flags, has_native_bf16
from daptune.errors import BackboneError

from .made_up import SMALL, make_tensors, write_archive, write_huggingface, write_openclip
from .test_tokenizer import write_trimmed


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return make_tensors()


def features(backbone: Backbone) -> tuple[Tensor, Tensor]:
    images = backbone.preprocess(Image.new("RGB", (40, 50), (10, 200, 90)))[None]
    with torch.no_grad():
        return backbone.clip.encode_image(images), backbone.clip.encode_text(backbone.tokenizer(["a cat", "two dogs."]))


def test_every_layout_gives_the_same_features(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    paths = [
        write_archive(tmp_path / "ViT.pt", tensors),
        write_huggingface(tmp_path / "hf", tensors),
        write_huggingface(tmp_path / "shards", tensors, shards=2),
    ]
    first, *others = (features(load_backbone(path)) for path in paths)
    assert first[0].shape == (1, 24)
    assert first[1].shape == (2, 24)
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0)


def test_backbone_is_frozen_and_known_by_its_file(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    folder = write_openclip(tmp_path, tensors)
    backbone = load_backbone(str(folder))
    assert backbone.name == str(folder)
    assert backbone.sha256 == hashlib.sha256((folder / "open_clip_model.safetensors").read_bytes()).hexdigest()
    assert backbone.precision == resolve_precision("auto")
    assert backbone.device == torch.device("cpu")
    assert not backbone.clip.training
    assert not any(parameter.requires_grad for parameter in backbone.clip.parameters())
    assert backbone.tokenizer.context_length == 12
    assert backbone.to("cpu") is backbone


def test_sha256_of_shards_and_of_changed_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    both = sha256_of([tmp_path / "b", tmp_path / "a"])
    assert both == sha256_of([tmp_path / "a", tmp_path / "b"])
    (tmp_path / "b").write_bytes(b"33")
    assert sha256_of([tmp_path / "a", tmp_path / "b"]) != both
    assert sha256_of([tmp_path / "a"]) == hashlib.sha256(b"1").hexdigest()


def test_a_folder_with_its_own_tokenizer(tmp_path: Path) -> None:
    config = replace(SMALL, vocab_size=516, activation="gelu")
    folder = write_openclip(tmp_path, make_tensors(config), config)
    with pytest.raises(BackboneError, match=r"embeds 516 tokens, but there is no tokenizer\.json"):
        load_backbone(folder)
    write_trimmed(folder / "tokenizer.json")
    assert load_backbone(folder).tokenizer.eot == 515
    assert features(load_backbone(folder))[1].shape == (2, 24)


def test_a_tag_decides_what_it_knows(tmp_path: Path, tensors: dict[str, Tensor], monkeypatch) -> None:
    write_openclip(tmp_path, tensors, replace(SMALL, activation="gelu"))
    monkeypatch.setattr("daptune.clip.backbone.locate", lambda *_, **__: tmp_path)
    assert load_backbone("ViT-B-16/openai").clip.config.activation == "quick_gelu"
    assert load_backbone("ViT-B-16/laion2b_s34b_b88k").clip.config.activation == "gelu"
    preprocess = load_backbone("ViT-H-14/dfn5b").preprocess
    assert (preprocess.resize, preprocess.size, preprocess.mean) == ("squash", 32, (0.5, 0.5, 0.5))


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision(tmp_path: Path, tensors: dict[str, Tensor], precision: str, dtype: torch.dtype) -> None:
    backbone = load_backbone(write_openclip(tmp_path, tensors), precision=precision)
    assert (backbone.precision, backbone.clip.dtype) == (precision, dtype)
    for part in features(backbone):
        assert part.dtype == torch.float32
        assert part.isfinite().all()


def test_fp16_faithful(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = write_openclip(tmp_path, tensors)
    backbone = load_backbone(path, precision="fp16-faithful")
    assert (backbone.precision, backbone.clip.dtype) == ("fp16-faithful", torch.float16)
    for found, wanted in zip(features(backbone), features(load_backbone(path)), strict=True):
        assert torch.cosine_similarity(found, wanted).min() > 0.999


def test_auto_precision(monkeypatch) -> None:
    monkeypatch.setattr(precision_module, "cpu_flags", lambda: frozenset({"sse", "avx512_bf16"}))
    assert resolve_precision("auto", "cpu") == "bf16"
    assert resolve_precision("fp32", "cpu") == "fp32"
    monkeypatch.setattr(precision_module, "cpu_flags", lambda: frozenset({"avx2", "avx512f"}))
    assert resolve_precision("auto", "cpu") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"
    assert resolve_precision("auto", "meta") == "fp32"
    with pytest.raises(BackboneError, match=r"no precision 'bf61'\. Did you mean 'bf16'"):
        resolve_precision("bf61", "cpu")


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bf16_on_a_gpu(monkeypatch, capability: tuple[int, int], native: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert has_native_bf16(torch.device("cuda")) is native


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("processor : 0\nflags\t\t: fpu sse amx_bf16 amx_tile\n", "amx_bf16"),
        ("Features\t: fp asimd bf16 i8mm\n", "bf16"),
        ("no such line\n", None),
    ],
)
def test_processor_flags(tmp_path: Path, text: str, flag: str | None) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    flags = cpu_flags(tmp_path / "cpuinfo")
    assert flag in flags if flag else flags == frozenset()
    assert cpu_flags(tmp_path / "nothing") == frozenset()


def test_devices(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    folder = write_openclip(tmp_path, tensors)
    absent = ["gpu", "cuda:99"] if torch.cuda.is_available() else ["gpu", "cuda"]
    for device in absent:
        with pytest.raises(BackboneError, match=f"'{device}' cannot be used") as caught:
            load_backbone(folder, device=device)
        assert "\n" not in str(caught.value)
    with pytest.raises(BackboneError, match="cannot be used"):
        load_backbone(folder).to(absent[1])
