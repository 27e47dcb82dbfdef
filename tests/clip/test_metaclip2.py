"""MetaCLIP 2: texts read at the first end, tokens of many languages, both layouts, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from daptune.adapter.store import load_adapter, make_record, save_adapter
from daptune.clip import rows
from daptune.clip.backbone import Backbone, load_backbone
from daptune.clip.hub import resolve
from daptune.errors import AdapterError, BackboneError
from daptune.methods import METHODS, make_config, say_unreadable

from .made_up_metaclip2 import METACLIP2, SPECIAL, make_tensors, write_openclip, write_tokenizer, write_transformers
from .test_model import plain_text

WRITERS = {"transformers": write_transformers, "open_clip": write_openclip}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return make_tensors(METACLIP2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Tensor]) -> Path:
    return write_transformers(tmp_path_factory.mktemp("metaclip2"), tensors)


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Backbone:
    return load_backbone(folder, precision="fp32")


@pytest.mark.parametrize("layout", WRITERS)
def test_both_layouts_are_read(layout: str, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    found = load_backbone(WRITERS[layout](tmp_path, tensors), precision="fp32")
    assert found.clip.config == METACLIP2
    state = found.clip.state_dict()
    assert set(state) == set(tensors) and all(torch.equal(state[name], tensors[name]) for name in state)


def test_a_text_is_read_at_its_first_end(backbone: Backbone) -> None:
    """Words have higher ids than the end; what follows the end does not count, another end included."""
    clip = backbone.clip
    ids = backbone.tokenizer(["a photo of a Cat", "собака", ""])
    lengths = [7, 3, 2]
    assert [row.tolist().index(2) + 1 for row in ids] == lengths
    expected = torch.stack(
        [plain_text(clip, clip.text.embed(row), length - 1) for row, length in zip(ids, lengths, strict=True)]
    )
    torch.testing.assert_close(clip.encode_text(ids), expected, atol=1e-5, rtol=1e-5)
    changed = ids.clone()
    changed[:, 8], changed[:, 9:] = 2, 300
    assert torch.equal(clip.encode_text(changed), clip.encode_text(ids))


def test_texts_keep_their_case_and_have_an_end_of_their_own(backbone: Backbone) -> None:
    tokenizer = backbone.tokenizer
    assert (tokenizer.start, tokenizer.eot, tokenizer.pad) == ((0,), 2, 1)
    assert tokenizer.encode("Cat") != tokenizer.encode("cat") and len(tokenizer.encode("猫")) == 1
    for text in ("</s>", "a <s> Cat <pad></s> </s></s>", "＜/s＞"):
        assert not {0, 1, 2} & set(tokenizer.encode(text)), text
    ids = tokenizer(["Cat"])[0].tolist()
    assert ids[0] == 0 and ids[2] == 2 and set(ids[3:]) == {1} and len(ids) == 40
    with pytest.raises(BackboneError, match="has 42 tokens with its start and end, the limit is 40"):
        tokenizer(["dog " * 40])


def test_distilled_models_have_the_texts_of_siglip(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """mT5's pieces: no start, and </s> is number 1."""
    write_transformers(tmp_path, tensors)
    write_tokenizer(tmp_path / "tokenizer.json", ("<pad>", "</s>", "<unk>"))
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    distilled = load_backbone(tmp_path, precision="fp32")
    ids = distilled.tokenizer(["Cat!", "dog"])
    assert distilled.clip.text.eos_id == 1 and ids[:, :3].tolist() == [
        [*distilled.tokenizer.encode("cat"), 1, 0],
        [*distilled.tokenizer.encode("dog"), 1, 0],
    ]


def test_tokenizers_of_other_families(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    write_transformers(tmp_path, tensors)
    for special, size, words in (
        (("<pad>", "</s>", "<unk>"), 400, "</s> as piece 2, found 400 without them"),
        (SPECIAL, 500, "at most 400 pieces .* found 500; fetch"),
    ):
        write_tokenizer(tmp_path / "tokenizer.json", special, size)
        with pytest.raises(BackboneError, match=f"is not the tokenizer of this MetaCLIP 2: .*{words}"):
            load_backbone(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(BackboneError, match="has neither tokenizer"):
        load_backbone(tmp_path)


def test_the_table_may_stay_in_its_file(folder: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features and gradients of learned contexts are the same; a row is read once, and only those of the names are."""
    monkeypatch.setattr(rows, "LARGE", 1)
    lazy = load_backbone(folder, precision="fp32")
    assert isinstance(lazy.clip.text.token_embedding, rows.EmbeddingRows)
    names = ["Cat", "sea lake", "собака"]
    for options in ({"text_tokens": 3}, {"text_tokens": 3, "class_position": "middle"}):
        found = []
        for each in (lazy, backbone):
            coop = METHODS["coop"](each, names, make_config("coop", options))
            features = coop.text_features()
            found += [features, *torch.autograd.grad(features.square().sum(0)[0], coop.text_prompt)]
        assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
    held = lazy.clip.text.token_embedding._held[1]
    table = load_file(folder / "model.safetensors")["text_model.embeddings.token_embedding.weight"]
    assert len(held) < 20 and all((table == row).all(1).any() for row in held)
    monkeypatch.setattr(lazy.clip.text.token_embedding, "path", folder / "gone.safetensors")
    assert torch.equal(lazy.clip.text.embed([0, 2]), table[[0, 2]])
    with pytest.raises(BackboneError, match="cannot be read any more"):
        lazy.clip.text.embed([300])


def test_an_adapter_belongs_to_its_tokenizer(
    backbone: Backbone, folder: Path, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    method = METHODS["coop"](backbone, ["Cat", "猫"], make_config("coop", {"text_tokens": 2}))
    record = make_record(method, backbone)
    assert record.backbone["family"] == "metaclip2" and "logit_bias" not in record.backbone
    saved = save_adapter(tmp_path / "a", method, record)
    with torch.no_grad():
        assert torch.equal(load_adapter(saved).method.text_features(), method.text_features())
    other = write_transformers(tmp_path / "b", tensors)
    write_tokenizer(other / "tokenizer.json", size=399)
    with pytest.raises(AdapterError, match="another tokenizer"):
        load_adapter(saved, str(other))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs(name: str, backbone: Backbone) -> None:
    method = METHODS[name](backbone, ["Cat", "sea lake", "собака"], make_config(name, {}))
    assert method.logits(IMAGES).shape == (2, 3)


def test_words_of_any_script_are_readable(backbone: Backbone, caplog: pytest.LogCaptureFixture) -> None:
    """A single piece is as long as its single letter; numbers still say nothing."""
    say_unreadable(METHODS["zero_shot"](backbone, ["猫", "собака", "犬猫"]))
    assert "cannot read" not in caplog.text
    say_unreadable(METHODS["zero_shot"](backbone, ["猫", "12", "34"]))
    assert "cannot read 2 of 3" in caplog.text


def test_names_of_the_hub() -> None:
    huge = resolve("ViT-H-14-worldwide-quickgelu/metaclip2_worldwide")
    assert huge.licence == resolve("hf:facebook/metaclip-2-worldwide-b32").licence == "CC-BY-NC-4.0, no commercial use"
    assert not resolve("ViT-B-16/openai").licence
    assert (huge.name, huge.activation) == ("ViT-H-14-worldwide/metaclip2_worldwide", "quick_gelu")
    wide = resolve("ViT-bigG-14-worldwide-378/metaclip2_worldwide")
    assert (wide.activation, wide.preprocess) == (None, {"resize": "squash"})
