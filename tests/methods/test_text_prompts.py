"""CoOp's prompts: token layout, first values, and features and gradients against the official padded algorithm."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from daptune.errors import BackboneError, MethodError
from daptune.methods import METHODS, make_config
from daptune.methods.coop import CoOp, CoOpConfig
from daptune.methods.text_prompts import POSITIONS, PhraseConfig, TextPrompts, noise

from ..clip.test_model import plain_text
from ..crossings import Crossings
from .conftest import NAMES

MANY = {"1": ("cat", "sea_lake"), "2": "dog", "3": ("Boeing 737-800", "river", "bird")}
SAID, OWNERS = ["cat", "sea_lake", "dog", "Boeing 737-800", "river", "bird"], [0, 0, 1, 2, 2, 2]


def official_features(backbone: Any, context: Tensor, position: str, names: Sequence[str] = NAMES) -> Tensor:
    """As METHODS A.3 describes CoOp: "X ... X name." padded to 77, the X's embeddings replaced, the whole tower run,
    the feature read at the EOT of the tokenised text; unit norm. Context (M, W) or (C, M, W) -> (C, D)."""
    clip, tokens = backbone.clip, context.shape[-2]
    rows = []
    for c, name in enumerate(name.replace("_", " ") for name in names):
        ids = backbone.tokenizer([" ".join(["X"] * tokens) + " " + name + "."])[0]
        assert len(ids) == 77
        embedded = clip.text.token_embedding(ids)
        v = context[c] if context.dim() == 3 else context
        sos, suffix, width = embedded[:1], embedded[1 + tokens :], len(backbone.tokenizer.encode(name))
        parts = {
            "end": [sos, v, suffix],
            "middle": [sos, v[: tokens // 2], suffix[:width], v[tokens // 2 :], suffix[width:]],
            "front": [sos, suffix[:width], v, suffix[width:]],
        }[position]
        rows.append(plain_text(clip, torch.cat(parts), int(ids.argmax())))
    features = torch.stack(rows)
    return features / features.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize(
    ("option", "allowed", "refused", "words"),
    [
        ("text_tokens", 1, 0, "1 token or more, found 0. For example: text_tokens=16"),
        ("class_position", "front", "top", "one of end, middle, front, found 'top'. For example: class_position=end"),
    ],
)
def test_options_have_bounds_and_name_them(option: str, allowed: Any, refused: Any, words: str) -> None:
    assert getattr(CoOpConfig(**{option: allowed}), option) == allowed
    with pytest.raises(MethodError) as caught:
        CoOpConfig(**{option: refused})
    assert str(caught.value) == f"{option}: expected {words}"


def test_the_number_of_tokens_is_the_phrases() -> None:
    """4 is the default, which every phrase may replace; another number must be that of the phrase."""
    PhraseConfig().check_length(3)
    PhraseConfig(text_tokens=5).check_length(5)
    with pytest.raises(MethodError) as caught:
        PhraseConfig(text_tokens=5).check_length(6)
    words = "expected 6 (context_init's) or an empty context_init, found 5. For example: text_tokens=4"
    assert str(caught.value) == f"text_tokens: {words}"


@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("tokens", [1, 5, 16])
@pytest.mark.parametrize("position", POSITIONS)
def test_features_and_gradients_equal_the_official_algorithm(
    backbone: Any, position: str, tokens: int, class_specific: bool
) -> None:
    config = CoOpConfig(text_tokens=tokens, class_specific=class_specific, class_position=position)
    coop = CoOp(backbone, NAMES, config)
    with torch.no_grad():
        coop.text_prompt.mul_(50)  # of the size of a word's embedding
    assert coop.text_prompt.shape == ((4,) if class_specific else ()) + (tokens, 16)
    weights = torch.randn(4, 24, generator=torch.Generator().manual_seed(3))
    ours, official = coop.text_features(), official_features(backbone, coop.text_prompt, position)
    torch.testing.assert_close(ours, official, atol=1e-5, rtol=1e-5)
    (found,) = torch.autograd.grad((ours * weights).sum(), coop.text_prompt)
    (expected,) = torch.autograd.grad((official * weights).sum(), coop.text_prompt)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("position", POSITIONS)
def test_a_class_with_several_names_has_the_mean_of_their_unit_features(
    backbone: Any, position: str, class_specific: bool
) -> None:
    """2, 1 and 3 names; a context of a class is joined with each of its names."""
    config = CoOpConfig(text_tokens=6, class_specific=class_specific, class_position=position)
    coop = CoOp(backbone, MANY, config)
    with torch.no_grad():
        coop.text_prompt.mul_(50)  # of the size of a word's embedding
    assert coop.text_prompt.shape == ((3,) if class_specific else ()) + (6, 16)
    context = coop.text_prompt[OWNERS] if class_specific else coop.text_prompt
    alone = official_features(backbone, context, position, SAID)
    means = torch.stack([alone[[k for k, owner in enumerate(OWNERS) if owner == c]].mean(0) for c in range(3)])
    official, ours = means / means.norm(dim=-1, keepdim=True), coop.text_features()
    torch.testing.assert_close(ours, official, atol=1e-5, rtol=1e-5)
    weights = torch.randn(3, 24, generator=torch.Generator().manual_seed(3))
    (found,) = torch.autograd.grad((ours * weights).sum(), coop.text_prompt)
    (expected,) = torch.autograd.grad((official * weights).sum(), coop.text_prompt)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", ["cat", "Boeing 737-800", "it'", "St. Paul.", "antirrhinum"])
def test_token_layout_follows_coops_rule(backbone: Any, position: str, name: str) -> None:
    encode, eot = backbone.tokenizer.encode, backbone.tokenizer.eot
    config = CoOpConfig(text_tokens=3, class_position=position, class_specific=True)
    prompts = TextPrompts(backbone, [name], config)
    full, width = backbone.tokenizer([f"X X X {name}."])[0].tolist(), len(encode(name))
    sos, suffix = full[0], full[4 : full.index(eot) + 1]
    x = [0, 0, 0]
    expected = {
        "end": [sos, *x, *suffix],
        "middle": [sos, *x[:1], *suffix[:width], *x[1:], *suffix[width:]],
        "front": [sos, *suffix[:width], *x, *suffix[width:]],
    }[position]
    assert prompts.ids[0].tolist() == expected
    assert [place for place, token in enumerate(expected) if token == 0] == prompts.slots[0].tolist()
    assert int(prompts.lengths[0]) == len(expected) == full.index(eot) + 1


def test_shorter_prompts_are_padded_with_zeros(backbone: Any) -> None:
    config = CoOpConfig(text_tokens=3, class_position="front")
    prompts = TextPrompts(backbone, ["cat", "Boeing 737-800"], config)
    short, long = prompts.lengths.tolist()
    assert prompts.ids.shape == (2, long) and short < long
    assert prompts.ids[0, short - 1 :].tolist() == [backbone.tokenizer.eot, *[0] * (long - short)]


@pytest.mark.parametrize("names", [NAMES, list(MANY.values())], ids=["one name", "several"])
def test_a_device_gets_the_tokens_once_and_training_can_use_them(names: Any, backbone: Any) -> None:
    """`meta` stands for a GPU. Tensors that prediction makes could not be trained with. With several names for a class,
    three more tensors say which."""
    prompts = TextPrompts(backbone, names, CoOpConfig(text_tokens=3, class_position="middle"))
    backbone.clip.to("meta")
    context = torch.zeros(3, 16, device="meta")
    with torch.inference_mode(), Crossings() as crossings:
        assert prompts.features(context).shape == (len(names), 24)
    pool = [] if names == NAMES else [prompts.pool.owners, prompts.pool.places, prompts.pool.weights]
    assert crossings.found == ["_to_copy"] * (3 + len(pool))
    for tensor in (prompts.ids, prompts.slots, prompts.lengths, *pool):
        assert tensor.device.type == "meta" and not tensor.is_inference()
    with Crossings() as crossings:
        prompts.features(context)
    assert not crossings.found


def test_noise_is_that_of_the_generator_on_the_backbones_device(backbone: Any, vit_b_16: Any) -> None:
    expected = 0.02 * torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))
    assert torch.equal(noise(backbone.clip, (2, 5, 16), torch.Generator().manual_seed(3)), expected)
    prompts = TextPrompts(backbone, NAMES[:2], CoOpConfig(text_tokens=5, class_specific=True))
    assert torch.equal(prompts.initial(torch.Generator().manual_seed(3)), expected)
    assert noise(vit_b_16.clip, (2, 5), torch.Generator()).device.type == "meta"


def test_the_first_context_is_normal_with_deviation_0_02(backbone: Any) -> None:
    values = METHODS["coop"](backbone, NAMES, CoOpConfig(text_tokens=60)).state_dict()["text_prompt"]
    assert values.dtype == torch.float32
    assert float(values.std()) == pytest.approx(0.02, rel=0.1) and abs(float(values.mean())) < 0.003


@pytest.mark.parametrize("class_specific", [False, True])
def test_the_context_can_begin_with_words(backbone: Any, class_specific: bool) -> None:
    coop = CoOp(backbone, NAMES, CoOpConfig(context_init="a photo of a", class_specific=class_specific))
    ids = backbone.tokenizer.encode("a photo of a")
    expected = backbone.clip.text.token_embedding.weight[ids].expand_as(coop.text_prompt)
    assert len(ids) == 4 and coop.text_prompt.shape[-2] == 4 and torch.equal(coop.text_prompt, expected)
    zero_shot = METHODS["zero_shot"](backbone, NAMES)
    torch.testing.assert_close(coop.text_features(), zero_shot.text_features(), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        coop.text_prompt.zero_()
    assert backbone.clip.text.token_embedding.weight[ids].any()  # a copy, not a view of the frozen table


def test_several_contexts_run_at_once(backbone: Any) -> None:
    coop = CoOp(backbone, NAMES)
    contexts = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    together = coop.prompts.features(contexts)
    assert together.shape == (3, 4, 24)
    for n in range(3):
        torch.testing.assert_close(together[n], coop.prompts.features(contexts[n]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
def test_the_context_limit_is_that_of_the_tower(backbone: Any, position: str) -> None:
    # 1 + M + name + "." + EOT <= 77
    most = 77 - 1 - len(backbone.tokenizer.encode("Boeing 737-800.")) - 1
    METHODS["coop"](backbone, NAMES, CoOpConfig(text_tokens=most, class_position=position)).text_features()
    with pytest.raises(ValueError, match="'Boeing 737-800'"):
        METHODS["coop"](backbone, NAMES, CoOpConfig(text_tokens=most + 1, class_position=position))


@pytest.mark.parametrize(
    ("options", "count"), [({}, 8192), ({"context_init": "a photo of a"}, 2048), ({"class_specific": True}, 8192 * 4)]
)
def test_parameter_counts_of_vit_b_16(vit_b_16: Any, options: dict[str, Any], count: int) -> None:
    assert METHODS["coop"](vit_b_16, NAMES, make_config("coop", options)).parameter_count == count


def test_a_common_context_takes_new_classes_and_an_own_one_does_not(backbone: Any) -> None:
    coop = CoOp(backbone, NAMES)
    torch.testing.assert_close(coop.with_classes(NAMES[1:]).text_features(), coop.text_features()[1:])
    own = CoOp(backbone, NAMES, replace(CoOpConfig(), class_specific=True))
    with pytest.raises(MethodError, match="a tensor for each of its 4 classes and cannot take new class names"):
        own.with_classes(NAMES)


def test_cross_entropy_is_the_loop(backbone: Any) -> None:
    coop = CoOp(backbone, NAMES)
    images, labels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 3, 0])
    losses = coop.losses(images, labels)
    assert set(losses) == {"cross_entropy", "total"}
    rows = coop.logits(images).tolist()
    plain = sum(math.log(sum(map(math.exp, row))) - row[y] for row, y in zip(rows, labels.tolist(), strict=True)) / 3
    assert losses["total"].item() == pytest.approx(plain, rel=1e-5) == losses["cross_entropy"].item()


def test_a_name_that_does_not_fit_tells_how_many_tokens_would(backbone: Any) -> None:
    """77 tokens are a start, 16 of the context and 60 for a name with its full stop and end."""
    names = ["cat", "dog " * 59, "dog " * 60]
    with pytest.raises(
        BackboneError, match=r"or learn fewer context tokens, 14 at most \(--set text_tokens\)\.$"
    ) as told:
        CoOp(backbone, names)
    assert "takes 62 tokens, but 60" in str(told.value)
    CoOp(backbone, names, replace(CoOpConfig(), text_tokens=14))
    with pytest.raises(BackboneError, match=r"16 context tokens: shorten the name \(--names keeps the label\)\.$"):
        CoOp(backbone, ["dog " * 74])
