"""Tokens that join at a middle block, against whole padded texts and single images run through the plain towers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from daptune.clip import joining
from daptune.clip.model import CLIP
from daptune.clip.suffixes import Suffixes
from daptune.clip.towers import TextTower, VisionTower
from daptune.errors import BackboneError

from .test_model import CONFIG, made_up_clip, plain_block, plain_norm
from .test_prefix import GROUPS, NAMES, LetterTokenizer, whole_prompt


def plain_joined(clip: CLIP, name: str, context: Tensor, block: int, common: Any = None, own: Any = None) -> Tensor:
    """The feature (D,) of a whole padded text: `own` put at places 1..M before the block, or `common[0]` inserted there
    behind SOS, and common[1] ... put in those places before the next ones."""
    embedded, eot = whole_prompt(clip, name, context)
    x = embedded + clip.text.positional_embedding[: len(embedded)]
    for place, layer in enumerate(clip.text.transformer.blocks):
        if place == block and own is not None:
            x = torch.cat([x[:1], own, x[1 + len(own) :]])
        if place >= block and common is not None:
            tokens = common[place - block]
            x = torch.cat([x[:1], tokens, x[1 if place == block else 1 + len(tokens) :]])
        x = plain_block(layer, x, True, clip.config.activation)
    eot += 0 if common is None else common.shape[1]
    return plain_norm(clip.text.ln_final, x[eot : eot + 1])[0] @ clip.text.text_projection


def check(found: Tensor, plain: Tensor, learned: list[Tensor]) -> None:
    """Equal features, and gradients of a weighted sum of squares."""
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(4))
    ours, theirs = (torch.autograd.grad((weights * f.square()).sum(), learned) for f in (found, plain))
    for a, b in zip(ours, theirs, strict=True):
        assert b.any()
        torch.testing.assert_close(a / b.abs().max(), b / b.abs().max(), atol=1e-5, rtol=1e-4)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("chunk", [10_000, 12])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_texts_own_tokens_take_the_place_of_its_context(
    block: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daptune.clip.towers.TEXT_CHUNK_TOKENS", chunk)
    monkeypatch.setattr("daptune.clip.prefix.LINE_TOKENS", 8)
    clip, context, own = made_up_clip(), drawn(5, 16, seed=1), drawn(len(NAMES), 5, 16, seed=2)
    suffixes = Suffixes.build(LetterTokenizer(), NAMES, 5)
    found = clip.text.above(clip.text.below(context, suffixes, block), suffixes, own=own)
    plain = torch.stack([plain_joined(clip, n, context, block, own=o) for n, o in zip(NAMES, own, strict=True)])
    check(found, plain, [own, context] if block else [own])  # before the first block, nothing of the context is left


@pytest.mark.parametrize("chunk", [10_000, 12])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_common_tokens_join_and_are_replaced(block: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daptune.clip.towers.TEXT_CHUNK_TOKENS", chunk)
    monkeypatch.setattr("daptune.clip.prefix.LINE_TOKENS", 8)
    clip, context, common = made_up_clip(), drawn(3, 16, seed=1), drawn(3 - block, 2, 16, seed=2)
    suffixes = Suffixes.build(LetterTokenizer(), NAMES, 3)
    found = clip.text.above(clip.text.below(context, suffixes, block), suffixes, common=common)
    plain = torch.stack([plain_joined(clip, name, context, block, common=common) for name in NAMES])
    check(found, plain, [common, context])


def test_without_tokens_it_is_the_tower(block: int = 1) -> None:
    clip, context = made_up_clip(), drawn(5, 16, seed=1)
    suffixes = Suffixes.build(LetterTokenizer(), NAMES, 5)
    found = clip.text.above(clip.text.below(context, suffixes, block), suffixes)
    torch.testing.assert_close(found, clip.text.features(context[None], suffixes)[0], atol=1e-6, rtol=1e-6)


def test_several_names_of_a_class_have_its_tokens() -> None:
    clip, context, own = made_up_clip(), drawn(5, 16, seed=1), drawn(len(GROUPS), 5, 16, seed=2)
    suffixes = Suffixes.build(LetterTokenizer(), GROUPS, 5)
    found = clip.text.above(clip.text.below(context, suffixes, 1), suffixes, own=own)
    for row, names, tokens in zip(found, GROUPS, own, strict=True):
        each = [names] if isinstance(names, str) else names
        features = [plain_joined(clip, name, context, 1, own=tokens) for name in each]
        mean = torch.stack([feature / feature.norm() for feature in features]).mean(0)
        torch.testing.assert_close(row / row.norm(), mean / mean.norm(), atol=1e-5, rtol=1e-5)


def test_nothing_below_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that run with the states at hand: the upper ones, of a prefix of start, tokens and context and of the
    lines; with tokens of each text, the prefix is the start."""
    clip, seen = made_up_clip(), []
    suffixes, context = Suffixes.build(LetterTokenizer(), NAMES, 3), torch.zeros(3, 16)
    halfway = clip.text.below(context, suffixes, 1)
    run = clip.text.transformer.run

    def watched(part: Any, block: Any, x: Tensor, *rest: Any) -> Any:
        seen.append((clip.text.transformer.blocks.index(block), x.shape[-2]))
        return run(part, block, x, *rest)

    monkeypatch.setattr(clip.text.transformer, "run", watched)
    line = halfway.own.shape[2]
    clip.text.above(halfway, suffixes, common=torch.zeros(2, 2, 16))
    assert seen == [(1, 1 + 2 + 3), (1, line)]
    seen.clear()
    clip.text.above(halfway, suffixes, own=torch.zeros(len(NAMES), 3, 16))
    tokens = sum(map(len, suffixes.ids)) + 3 * len(NAMES)
    lines = max(1, tokens // 48)
    assert seen[0] == (1, 1) and [block for block, _ in seen] == [1, 1]
    assert seen[1][1] * lines < tokens + 3 + max(map(len, suffixes.ids)) + lines  # hardly any padding


@pytest.mark.parametrize("block", [0, 1, 2])
def test_visual_tokens_join_and_are_read(block: int) -> None:
    clip, tokens = made_up_clip(), drawn(3 - block, 2, 32, seed=3)
    images = drawn(2, 3, 32, 32, seed=5).detach()
    found = clip.visual.above(clip.visual.below(images, block), block, tokens)
    plain = torch.stack([plain_image_read(clip, image, block, tokens) for image in images])
    assert found.shape == (2, 3, 32)
    check(found, plain, [tokens])
    none = clip.visual.above(clip.visual.below(images, block), block)
    torch.testing.assert_close(none[:, 0], clip.encode_image(images, projected=False), atol=1e-6, rtol=1e-6)
    assert none.shape[1] == 1


def plain_image_read(clip: CLIP, image: Tensor, block: int, tokens: Tensor) -> Tensor:
    """Class token and visual tokens (1 + n, W) behind ln_post, the tokens inserted behind the class token."""
    tower, count = clip.visual, tokens.shape[1]
    p, side = CONFIG.patch_size, CONFIG.image_size // CONFIG.patch_size
    corners = [(row * p, column * p) for row in range(side) for column in range(side)]
    patches = [tower.conv1.weight.flatten(1) @ image[:, r : r + p, c : c + p].flatten() for r, c in corners]
    x = plain_norm(tower.ln_pre, torch.stack([tower.class_embedding, *patches]) + tower.positional_embedding)
    for place, layer in enumerate(tower.transformer.blocks):
        if place >= block:
            x = torch.cat([x[:1], tokens[place - block], x[1 if place == block else 1 + count :]])
        x = plain_block(layer, x, False, clip.config.activation)
    return plain_norm(tower.ln_post, x[: 1 + count])


def test_other_towers_refuse_in_one_line() -> None:
    nothing: Any = None
    for call in (
        lambda: VisionTower.below(nothing, nothing, 1),
        lambda: VisionTower.above(nothing, nothing, 1),
        lambda: TextTower.below(nothing, nothing, nothing, 1),
        lambda: TextTower.above(nothing, nothing, nothing),
    ):
        with pytest.raises(BackboneError, match=r"at a middle block; say so in the method's `needs`\.$"):
            call()


def test_places_of_own_tokens_are_read_on_no_device() -> None:
    """Packed for a device without numbers."""
    suffixes = Suffixes.build(LetterTokenizer(), NAMES, 2)
    there = joining._Wide.pack(suffixes, 2, torch.device("meta"))
    assert there.source.device.type == "meta" and there.source.shape == there.lines.tokens.shape
