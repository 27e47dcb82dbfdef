"""SigLIP's towers against the same written out, its checkpoints and tokenizers, and what is refused."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from daptune.adapter.store import load_adapter, make_record, save_adapter
from daptune.clip import rows
from daptune.clip.backbone import Backbone, load_backbone
from daptune.clip.file_tokenizer import FileTokenizer, canonical
from daptune.clip.hub import resolve
from daptune.clip.suffixes import Suffixes
from daptune.errors import AdapterError, BackboneError, MethodError
from daptune.methods import METHODS, make_config, say_unreadable
from daptune.predict.adapted import AdapterPredictor

from .made_up_siglip import (
    SIGLIP,
    make_tensors,
    to_openclip,
    transformers_config,
    write_openclip,
    write_tokenizer,
    write_transformers,
)

NAMES = {"cat": "cat", "lake": "sea_lake", "737": "boeing 737-800", "dog": ["dog", "naive cafe"]}
WRITERS = {"transformers": write_transformers, "open_clip": write_openclip}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_transformers(tmp_path_factory.mktemp("siglip"), make_tensors())


@pytest.fixture(scope="module")
def siglip(folder: Path) -> Backbone:
    return load_backbone(folder, precision="fp32")


def one_line(path: Path, *words: str) -> None:
    with pytest.raises(BackboneError) as caught:
        load_backbone(path)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def whole_texts(backbone: Backbone, context: Tensor, names: list[str]) -> Tensor:
    """[context | name | end | pads], all 64 places through the plain tower: (C, D)."""
    tokenizer, text, found = backbone.tokenizer, backbone.clip.text, []
    for name in names:
        ids = [*tokenizer.encode(name), tokenizer.eot]
        ids += [tokenizer.pad] * (64 - len(context) - len(ids))
        found.append(torch.cat([context, text.token_embedding(torch.tensor(ids))]))
    return text.encode_embeddings(torch.stack(found), torch.full((len(names),), 64))


@pytest.mark.parametrize("chunk", [100_000, 64])
def test_what_texts_share_is_projected_once_with_the_same_features(
    siglip: Backbone, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daptune.clip.towers.TEXT_CHUNK_TOKENS", chunk)
    names = ["cat", "sea lake", "boeing 737 800"]
    context = torch.randn(2, 5, 48, requires_grad=True)
    ours = siglip.clip.text.features(context, Suffixes.build(siglip.tokenizer, names, 5))
    plain = torch.stack([whole_texts(siglip, one, names) for one in context])
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    (found,) = torch.autograd.grad(ours.square().sum(), context)
    (expected,) = torch.autograd.grad(plain.square().sum(), context)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("chunk", [100_000, 64])
@pytest.mark.parametrize(("kind", "block"), [("own", 0), ("own", 2), ("common", 1)])
def test_tokens_join_at_a_middle_block(
    siglip: Backbone, kind: str, block: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of 64 places through the blocks, one by one: a class's own tokens take the first places of those of both
    its names; common ones come before them and are replaced in the next block."""
    monkeypatch.setattr("daptune.clip.towers.TEXT_CHUNK_TOKENS", chunk)
    text, (first, *others) = siglip.clip.text, ["sea lake", "dog", "naive cafe"]
    context, generator = torch.randn(3, 48, requires_grad=True), torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 3 if kind == "own" else 2, 48, generator=generator).requires_grad_()
    suffixes = Suffixes.build(siglip.tokenizer, [first, others], 3, phrase="{}")
    ours = text.above(text.below(context, suffixes, block), suffixes, **{kind: tokens})
    plain = []
    for name, owner in zip([first, *others], (0, 1, 1), strict=True):
        ids = [*siglip.tokenizer.encode(name), siglip.tokenizer.eot]
        ids += [siglip.tokenizer.pad] * (61 - len(ids))
        x = torch.cat([context, text.token_embedding(torch.tensor(ids))]) + text.positional_embedding
        for place, layer in enumerate(text.transformer.blocks):
            if kind == "own" and place == block:
                x = torch.cat([tokens[owner], x[3:]])
            if kind == "common" and place >= block:
                x = torch.cat([tokens[place - block], x if place == block else x[2:]])
            x = layer(x)
        plain.append(text.text_projection(text.ln_final(x[-1])))
    units = [row / row.norm() for row in plain]
    mean = units[1] + units[2]
    expected = torch.stack([units[0], mean / mean.norm()])
    found = ours / ours.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn(2, 96, generator=generator)
    learned = [tokens, context] if block or kind == "common" else [tokens]
    for a, b in zip(*(torch.autograd.grad((weights * f).sum(), learned) for f in (found, expected)), strict=True):
        assert b.any()
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_pads_are_part_of_a_text(siglip: Backbone) -> None:
    """Another pad behind the same words is another feature; fewer ids than places are refused."""
    ids = siglip.tokenizer(["a photo of a cat", "dog"])
    assert ids.shape == (2, 64) and ids[1].tolist()[1:] == [1] * 63
    other = torch.where(ids == 1, 5, ids)
    assert (siglip.clip.encode_text(ids) - siglip.clip.encode_text(other)).abs().max() > 0.1
    with pytest.raises(BackboneError, match="needs all 64 ids"):
        siglip.clip.encode_text(ids[:, :10])


@pytest.mark.parametrize(
    "options", [{"class_position": "middle"}, {"class_position": "front"}, {"class_specific": True}]
)
def test_other_layouts_of_a_context_are_filled_up_too(siglip: Backbone, options: dict[str, Any]) -> None:
    names = ["cat", "sea lake"]
    coop = METHODS["coop"](siglip, names, make_config("coop", {"text_tokens": 4, **options}))
    found = coop.text_features()
    tokenizer, text = siglip.tokenizer, siglip.clip.text
    before = {"middle": 2, "front": 0}.get(str(options.get("class_position")), 4)
    for c, name in enumerate(names):
        context = coop.text_prompt[c] if coop.text_prompt.dim() == 3 else coop.text_prompt
        words, end = tokenizer.encode(name), [tokenizer.eot] + [tokenizer.pad] * 64
        own = text.token_embedding(torch.tensor(words))
        row = torch.cat([context[:before], own, context[before:], text.token_embedding(torch.tensor(end))])[:64]
        feature = text.encode_embeddings(row[None], torch.tensor([64]))[0]
        torch.testing.assert_close(found[c], feature / feature.norm(), atol=1e-5, rtol=1e-5)


def test_the_head_pools_over_visual_tokens_unless_told_not_to(siglip: Backbone) -> None:
    images, prompts = torch.randn(2, 3, 66, 66), torch.randn(1, 3, 96)
    plain, seen, alone = (
        siglip.clip.encode_image(images, *given, pool_prompts=pool)
        for given, pool in (((), True), ((prompts,), True), ((prompts,), False))
    )
    assert min((seen - plain).abs().max(), (seen - alone).abs().max(), (alone - plain).abs().max()) > 1e-3
    for pooled, expected in ((True, seen), (False, alone)):
        vpt = METHODS["vpt"](
            siglip, ["cat", "dog"], make_config("vpt", {"vision_pooled": pooled, "vision_depth": 1, "vision_tokens": 3})
        )
        vpt.vision_prompt.data.copy_(prompts[0])
        torch.testing.assert_close(vpt.encode(images), expected)


@pytest.mark.parametrize("layout", WRITERS)
def test_both_layouts_are_read(layout: str, tmp_path: Path) -> None:
    tensors = make_tensors(seed=3)
    backbone = load_backbone(WRITERS[layout](tmp_path, tensors), precision="fp32")
    assert backbone.clip.config == replace(SIGLIP, activation="gelu" if layout == "open_clip" else "gelu_tanh")
    state = backbone.clip.state_dict()
    assert set(state) == set(tensors) and all(torch.equal(state[name], tensors[name]) for name in state)
    how = backbone.preprocess
    assert (how.size, how.resize, how.mean, how.std) == (66, "squash", (0.5,) * 3, (0.5,) * 3)
    assert how.interpolation == ("bilinear" if layout == "transformers" else "bicubic")
    picture = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    resized = Image.fromarray(picture).resize((66, 66), {"bilinear": 2, "bicubic": 3}[how.interpolation])
    expected = (np.asarray(resized, dtype=np.float64).transpose(2, 0, 1) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(how(Image.fromarray(picture)).numpy(), expected, atol=1e-6)


def test_a_file_without_a_bias_has_none_to_add(tmp_path: Path) -> None:
    tensors = make_tensors()
    del tensors["logit_bias"]
    backbone = load_backbone(write_openclip(tmp_path, tensors), precision="fp32")
    assert backbone.clip.logit_bias == 0


def test_a_large_table_stays_in_its_file(folder: Path, siglip: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LARGE", 1)
    lazy = load_backbone(folder, precision="fp32")
    assert isinstance(lazy.clip.text.token_embedding, rows.EmbeddingRows)
    assert "token_embedding.weight" not in lazy.clip.state_dict() and lazy.sha256 == siglip.sha256
    ids = torch.tensor([[5, 3, 4], [5, 1199, 0]])
    table = load_file(folder / "model.safetensors")["text_model.embeddings.token_embedding.weight"]
    assert torch.equal(lazy.clip.text.embed(ids), table[ids])
    coops = [METHODS["coop"](backbone, NAMES, make_config("coop", {})) for backbone in (lazy, siglip)]
    assert torch.equal(coops[0].text_features(), coops[1].text_features())


# --- tokenizers and texts ---------------------------------------------------------------------------------------------


def test_texts_are_canonicalised() -> None:
    assert canonical("A Photo of a sea_lake.") == "a photo of a sea lake"
    assert canonical("  caf&eacute;, don't!\t3 ") == "café dont 3" and canonical("!!!") == ""


@pytest.mark.parametrize(("gemma", "ends"), [(False, (1, 1)), (True, (1, 0))])
def test_ends_of_both_generations(gemma: bool, ends: tuple[int, int], tmp_path: Path) -> None:
    tokenizer = FileTokenizer(write_tokenizer(tmp_path / "tokenizer.json", gemma=gemma), context_length=64, rows=1200)
    assert (tokenizer.eot, tokenizer.pad) == ends and tokenizer.start == ()
    ids = tokenizer(["Cat!"])[0].tolist()
    length = len(tokenizer.encode("cat"))
    assert ids[length:] == [ends[0]] + [ends[1]] * (63 - length)


def test_pieces_without_a_tokenizer_json(tmp_path: Path) -> None:
    """A spiece.model written by hand gives the ids of the same pieces in a tokenizer.json."""
    engine = json.loads(write_tokenizer(tmp_path / "tokenizer.json").read_text())["model"]
    model = b""
    for number, (piece, score) in enumerate(engine["vocab"]):
        text = piece.encode()
        inner = bytes([0x0A, len(text)]) + text + b"\x15" + struct.pack("<f", score)
        inner += bytes([0x18, 2]) if number == 0 else b""
        model += bytes([0x0A, len(inner)]) + inner
    (tmp_path / "spiece.model").write_bytes(model)
    pair = [FileTokenizer(tmp_path / name, context_length=64, rows=1200) for name in ("tokenizer.json", "spiece.model")]
    for text in ("a photo of a sea lake", "boeing 737-800", "zebra", ""):
        assert pair[0].encode(text) == pair[1].encode(text)
    assert pair[1].encode("sea lake") == [engine_id(engine, "▁sea"), engine_id(engine, "▁lake")]


def engine_id(model: dict[str, Any], piece: str) -> int:
    return [known for known, _ in model["vocab"]].index(piece)


def test_names_and_texts_that_do_not_fit(siglip: Backbone) -> None:
    with pytest.raises(BackboneError, match="has 71 tokens with its start and end, the limit is 64"):
        siglip.tokenizer(["dog " * 70])
    with pytest.raises(BackboneError, match="class name '!!!' has only punctuation"):
        METHODS["coop"](siglip, ["cat", "!!!"])
    with pytest.raises(BackboneError, match="class name '!!!' has only punctuation"):
        METHODS["zero_shot"](siglip, ["cat", "!!!"]).text_features()
    with pytest.raises(BackboneError, match="learn fewer context tokens"):
        METHODS["coop"](siglip, ["cat"], make_config("coop", {"text_tokens": 63}))


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_tokenizer_of_another_family(tmp_path: Path) -> None:
    write_transformers(tmp_path, make_tensors())
    write_tokenizer(tmp_path / "tokenizer.json", 1300)
    one_line(tmp_path, "is not the tokenizer of this SigLIP", "at most 1,200", "found 1,300")
    model = {"type": "BPE", "vocab": {"a": 0, "b</w>": 1}, "merges": [], "end_of_word_suffix": "</w>"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    one_line(tmp_path, "is not the tokenizer of this SigLIP", "without them")
    (tmp_path / "tokenizer.json").write_text("{")
    one_line(tmp_path, "cannot be read as a tokenizer")
    (tmp_path / "tokenizer.json").unlink()
    one_line(tmp_path, "has neither tokenizer.json nor spiece.model")


def test_naflex_is_known_and_not_served(tmp_path: Path) -> None:
    write_transformers(tmp_path, make_tensors())
    (tmp_path / "config.json").write_text(json.dumps(transformers_config() | {"model_type": "siglip2"}))
    one_line(tmp_path, "NaFlex", "siglip2-base-patch16-224")
    with pytest.raises(BackboneError, match="NaFlex"):
        resolve("siglip2-base-patch16-naflex")


def test_other_trunks_and_settings(tmp_path: Path) -> None:
    path = write_openclip(tmp_path, make_tensors()) / "open_clip_config.json"
    for part, setting, word in (
        ("vision_cfg", {"timm_model_name": "vit_base_patch16_siglip_gap_224"}, "siglip_gap"),
        ("text_cfg", {"no_causal_mask": False}, "no_causal_mask"),
        ("text_cfg", {"width": 64}, "text_width 64"),
    ):
        whole = json.loads(path.read_text())
        changed = json.loads(path.read_text())
        changed["model_cfg"][part].update(setting)
        path.write_text(json.dumps(changed))
        one_line(tmp_path, word)
        path.write_text(json.dumps(whole))
    tensors = to_openclip(make_tensors())
    del tensors["visual.trunk.attn_pool.kv.bias"]
    save_file(tensors, tmp_path / "open_clip_model.safetensors")
    one_line(tmp_path, "lacks visual.trunk.attn_pool.kv.bias")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_or_says_what_is_lacking(name: str, siglip: Backbone) -> None:
    lacking = METHODS[name].needs - siglip.clip.has
    joining = "visual tokens that join at a middle block"
    expected = {"prolip": {"a visual projection"}, "mmrl": {"a visual projection", joining}}
    assert lacking == expected.get(name, set())
    if lacking:
        with pytest.raises(MethodError, match=f"^`{name}` needs a visual projection; .* has none: use coop or"):
            METHODS[name](siglip, ["cat", "dog"])


# --- scores and adapters ----------------------------------------------------------------------------------------------


def test_the_bias_is_in_the_scores_and_changes_no_probability(siglip: Backbone) -> None:
    images = torch.randn(3, 3, 66, 66)
    method = METHODS["zero_shot"](siglip, ["cat", "dog"]).eval()
    with torch.no_grad():
        z, w = method.image_features(images).double(), method.text_features().double()
        expected = torch.tensor(4.0).double().exp() * z @ w.mT - 12.5
        torch.testing.assert_close(method.logits(images).double(), expected, atol=1e-4, rtol=1e-5)
        fits = 1 / (1 + (-expected).exp())
        torch.testing.assert_close(method.match_probabilities(images).double(), fits, atol=1e-5, rtol=1e-3)


def test_without_a_bias_there_is_no_match() -> None:
    with pytest.raises(MethodError, match="tiny has no logit_bias"):
        METHODS["zero_shot"](load_backbone("tiny"), ["cat"]).match_probabilities(torch.zeros(1, 3, 32, 32))


def test_an_adapter_belongs_to_its_tokenizer(siglip: Backbone, folder: Path, tmp_path: Path) -> None:
    method = METHODS["coop"](siglip, ["cat", "dog"], make_config("coop", {"text_tokens": 2}))
    record = make_record(method, siglip)
    assert record.backbone["family"] == "siglip" and record.backbone["logit_bias"] == "-12.5"
    saved = save_adapter(tmp_path / "a", method, record)
    with torch.no_grad():
        assert torch.equal(load_adapter(saved).method.text_features(), method.text_features())
    other = write_transformers(tmp_path / "b", make_tensors())
    write_tokenizer(other / "tokenizer.json", 1199)
    with pytest.raises(AdapterError, match="another tokenizer"):
        load_adapter(saved, str(other))


def test_the_cost_is_said_before_a_fit_that_pays_it(siglip: Backbone, caplog: pytest.LogCaptureFixture) -> None:
    """Three names, 64 places: 192 tokens; a causal tower takes 1 + 4 + (1 + 2) + (2 + 2) + (1 + 2) = 15."""
    say_unreadable(METHODS["coop"](siglip, ["cat", "sea lake", "dog"], make_config("coop", {"text_tokens": 4})))
    assert "encodes 192 text tokens, 13 times" in caplog.text
    caplog.clear()
    say_unreadable(METHODS["tip_adapter_f"](siglip, ["cat", "dog"]))
    assert "text tokens" not in caplog.text


def test_a_causal_tower_may_leave_its_table_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_up_backbone: str
) -> None:
    """Learned context stands between rows of the table, which it looks up in each step."""
    save_file(torch.load(made_up_backbone, weights_only=True), tmp_path / "clip.safetensors")
    monkeypatch.setattr(rows, "LARGE", 1)
    whole, same = (load_backbone(path, precision="fp32") for path in (made_up_backbone, tmp_path / "clip.safetensors"))
    assert isinstance(same.clip.text.token_embedding, rows.EmbeddingRows)
    first, second = (METHODS["coop"](backbone, ["cat", "dog"]).text_features() for backbone in (whole, same))
    assert torch.equal(first, second)


def test_sigmoid_scores_of_an_adapter_say_none_of_these(siglip: Backbone, tmp_path: Path) -> None:
    method = METHODS["coop"](siglip, ["cat", "dog"], make_config("coop", {"text_tokens": 2})).eval()
    saved = save_adapter(tmp_path / "a", method, make_record(method, siglip, temperature=3.0))
    images = torch.randn(3, 3, 66, 66)
    with torch.no_grad():
        expected = method.logits(images).double()
    predictor = AdapterPredictor().hold(load_adapter(saved, siglip))
    assert predictor.thresholds is None
    found = predictor.judge_each_class().probabilities(images.numpy())
    np.testing.assert_allclose(found, (1 / (1 + (-expected).exp())).numpy(), atol=1e-5)
    assert predictor.thresholds is not None and predictor.thresholds.tolist() == [0.5, 0.5]
    picture = np.zeros((70, 70, 3), np.uint8)
    assert predictor.predict([picture]) == [[]]  # the bias of -12.5 makes every class improbable


def test_sigmoid_scores_are_refused_without_a_bias(adapter: Path) -> None:
    with pytest.raises(MethodError, match="sigmoid scores are those of texts and images of a SigLIP"):
        AdapterPredictor().hold(load_adapter(adapter)).judge_each_class()
