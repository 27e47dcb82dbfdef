"""The shared-prefix tower against the whole padded prompt of each class run through the plain tower."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from daptune.clip import prefix
from daptune.clip.blocks import attend
from daptune.clip.model import CLIP
from daptune.clip.pooling import pool_names
from daptune.clip.prefix import Lines
from daptune.clip.suffixes import Suffixes
from daptune.clip.tokenizer import TextTokenizer
from daptune.errors import BackboneError

from ..crossings import Crossings
from .test_model import CONFIG, made_up_clip, plain_block, plain_norm, plain_text

NAMES = ["ab", "c", "defg_h", "ij", "k", "lmnop", "q"]
GROUPS = [("ab", "ij"), "c", ("defg_h", "k", "lmnop"), ("q",)]  # several names for a class


class LetterTokenizer(TextTokenizer):
    """One token a character; stands for the BPE."""

    context_length, vocab_size, sot, start, eot, pad = 20, 60, 58, (58,), 59, 0

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 50 + 1 for letter in text]

    def decode(self, ids: Iterable[int]) -> str:
        raise NotImplementedError


def whole_prompt(clip: CLIP, name: str, context: Tensor) -> tuple[Tensor, int]:
    """[SOS | context | name . EOT | padding] as token embeddings (T, W), and the EOT's position."""
    tokenizer = LetterTokenizer()
    ids = [*tokenizer.encode(name.replace("_", " ") + "."), tokenizer.eot]
    used = 1 + len(context) + len(ids)
    padded = torch.tensor(ids + [0] * (tokenizer.context_length - used))
    embedded = clip.text.token_embedding(padded)
    return torch.cat([clip.text.token_embedding.weight[tokenizer.sot][None], context, embedded]), used - 1


@pytest.mark.parametrize("chunk", [10_000, 12, 1])
@pytest.mark.parametrize("contexts", [1, 3])
def test_equals_whole_prompts_with_gradients(contexts: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daptune.clip.towers.TEXT_CHUNK_TOKENS", chunk)
    clip = made_up_clip()
    generator = torch.Generator().manual_seed(2)
    context = torch.randn(contexts, 5, 16, generator=generator, requires_grad=True)
    weights = torch.randn(contexts, len(NAMES), 24, generator=generator)
    suffixes = Suffixes.build(LetterTokenizer(), NAMES, 5)
    ours = clip.text.features(context, suffixes)
    plain = torch.stack(
        [torch.stack([plain_text(clip, *whole_prompt(clip, name, c)) for name in NAMES]) for c in context]
    )
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    (found,) = torch.autograd.grad((ours * weights).sum(), context)
    (expected,) = torch.autograd.grad((plain * weights).sum(), context)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chunk", [10_000, 12])
def test_several_names_make_one_feature_of_a_class(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The direction of the mean of their unit features, with the mean of their lengths; 2, 1, 3 and 1 names."""
    monkeypatch.setattr("daptune.clip.towers.TEXT_CHUNK_TOKENS", chunk)
    clip, context = made_up_clip(), torch.randn(2, 5, 16, requires_grad=True)
    suffixes = Suffixes.build(LetterTokenizer(), GROUPS, 5)
    ours = clip.text.features(context, suffixes)
    rows = []
    for one in context:
        for own in GROUPS:
            parts = [plain_text(clip, *whole_prompt(clip, name, one)) for name in ([own] if own == "c" else own)]
            mean = torch.stack([part / part.norm() for part in parts]).mean(0)
            rows.append(mean / mean.norm() * torch.stack([part.norm() for part in parts]).mean())
    plain = torch.stack(rows).unflatten(0, (2, 4))
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    (found,) = torch.autograd.grad(ours.square().sum() + ours[0, 2].sum(), context)
    (expected,) = torch.autograd.grad(plain.square().sum() + plain[0, 2].sum(), context)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_the_first_tokens_of_names_may_be_left_out(cut: int) -> None:
    """They count for the length of a prompt all the same: 15 tokens are too many for 14 places."""
    tokenizer = LetterTokenizer()
    suffixes = Suffixes.build(tokenizer, NAMES, 5, cut=cut)
    ids = [[*tokenizer.encode(name.replace("_", " ") + "."), tokenizer.eot][cut:] for name in NAMES]
    lines = Lines.pack(suffixes.ids)
    visible = torch.block_diag(*lines.visible)
    found = [lines.tokens.flatten()[visible[end]].tolist() for end in lines.ends[lines.order]]
    assert found == ids == [list(own) for own in suffixes.ids] and suffixes.start == (tokenizer.sot,)
    with pytest.raises(BackboneError, match="'abcdefghijklm' takes 15 tokens, but 14 "):
        Suffixes.build(tokenizer, ["abcdefghijklm"], 5, cut=cut)


def test_a_name_of_several_is_checked_and_said() -> None:
    with pytest.raises(BackboneError, match="'abcdefghijklm' takes 15 tokens, but 14 "):
        Suffixes.build(LetterTokenizer(), ["a", ("b", "abcdefghijklm", "c")], 5)


def test_whole_texts_of_a_class_make_one_feature() -> None:
    clip, tokenizer, texts = made_up_clip(), LetterTokenizer(), ["a ab", "a c", "a def", "a g"]
    _, pool = pool_names(["ab", ("c", "def"), "g"])
    words, suffixes = Suffixes.of_texts(tokenizer, texts, pool)
    ours = clip.text.features(clip.text.token_embedding(words)[None], suffixes)[0]
    rows = zip(tokenizer(texts), texts, strict=True)
    one, *two, three = (plain_text(clip, clip.text.token_embedding(row), len(text) + 1) for row, text in rows)
    mean = sum(part / part.norm() for part in two)
    own = mean / mean.norm() * (two[0].norm() + two[1].norm()) / 2
    torch.testing.assert_close(ours, torch.stack([one, own, three]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("layers", "depth"), [(3, 2), (3, 3), (2, 2), (2, 3)])
@pytest.mark.parametrize("per_context", [False, True])
def test_deep_prompts_replace_the_first_positions(layers: int, depth: int, per_context: bool) -> None:
    """3 of 7 positions; more prompts than a tower has layers are left out."""
    clip = made_up_clip(replace(CONFIG, text_layers=layers))
    context = torch.randn(2, 7, 16)
    deep = torch.randn(*((2,) if per_context else ()), depth - 1, 3, 16, requires_grad=True)
    suffixes = Suffixes.build(LetterTokenizer(), NAMES, 7)
    ours = clip.text.features(context, suffixes, deep)
    rows = []
    for n, one in enumerate(context):
        for name in NAMES:
            x, eot = whole_prompt(clip, name, one)
            x = x + clip.text.positional_embedding[: len(x)]
            for layer, block in enumerate(clip.text.transformer.blocks):
                if 0 < layer < depth:
                    x = torch.cat([x[:1], (deep[n] if per_context else deep)[layer - 1], x[4:]])
                x = plain_block(block, x, True, "quick_gelu")
            rows.append(plain_norm(clip.text.ln_final, x[eot : eot + 1])[0] @ clip.text.text_projection)
    plain = torch.stack(rows).unflatten(0, (2, -1))
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    (found,) = torch.autograd.grad(ours.square().sum(), deep)
    (expected,) = torch.autograd.grad(plain.square().sum(), deep)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("deep", [None, torch.ones(1, 3, 16)])
def test_a_tower_of_one_block_has_no_place_for_deep_prompts(deep: Tensor | None) -> None:
    clip, context = made_up_clip(replace(CONFIG, text_layers=1)), torch.randn(1, 5, 16)
    suffixes = Suffixes.build(LetterTokenizer(), NAMES, 5)
    plain = torch.stack([plain_text(clip, *whole_prompt(clip, name, context[0])) for name in NAMES])
    ours = clip.text.features(context, suffixes, deep)[0]
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near_single(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are of the type of the queries: torch's attention does not take others on every device."""

    def checked(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        mask = options.get("mask")
        assert mask is None or mask.dtype == query.dtype
        return attend(query, key, value, **options)

    monkeypatch.setattr(prefix, "attend", checked)
    clip, context = made_up_clip(), torch.randn(2, 5, 16)
    suffixes = Suffixes.build(LetterTokenizer(), NAMES, 5)
    exact = clip.text.features(context, suffixes)
    near = clip.set_precision(precision).text.features(context, suffixes)
    assert near.dtype == torch.float32 and 0 < (near - exact).norm() / exact.norm() < 0.02


def test_no_context_is_plain_text_and_trimmed_agrees() -> None:
    clip = made_up_clip()
    tokenizer = LetterTokenizer()
    suffixes = Suffixes.build(tokenizer, NAMES, 0)
    ours = clip.text.features(torch.empty(1, 0, 16), suffixes)[0]
    prompts = [whole_prompt(clip, name, torch.empty(0, 16)) for name in NAMES]
    lengths = torch.tensor([eot + 1 for _, eot in prompts])
    trimmed = clip.text.encode_embeddings(torch.stack([embedded for embedded, _ in prompts]), lengths)
    torch.testing.assert_close(ours, trimmed, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("texts", "common"),
    [
        (["a photo of ab", "a photo of c", "a photo of ad"], len("a photo of ")),
        (["abc", "xbc"], 0),
        (["ab", "abc"], 2),  # the end of the first is no letter of the second
        (["ab", "ab"], 2),  # what follows is the end alone
        (["abcde"], 5),
    ],
)
def test_whole_texts_are_divided_where_they_part(texts: list[str], common: int) -> None:
    clip, tokenizer = made_up_clip(), LetterTokenizer()
    words, suffixes = Suffixes.of_texts(tokenizer, texts)
    assert words.tolist() == tokenizer.encode(texts[0][:common]) and words.dtype == torch.int64
    assert [len(own) for own in suffixes.ids] == [len(text) - common + 1 for text in texts]
    ours = clip.text.features(clip.text.token_embedding(words)[None], suffixes)[0]
    rows = tokenizer(texts)
    plain = [
        plain_text(clip, clip.text.token_embedding(row), len(text) + 1) for row, text in zip(rows, texts, strict=True)
    ]
    torch.testing.assert_close(ours, torch.stack(plain), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [10_000, 12])
def test_other_blocks_may_stand_for_the_towers_own(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their gradients come too, although the context has none."""
    monkeypatch.setattr("daptune.clip.towers.TEXT_CHUNK_TOKENS", chunk)
    monkeypatch.setattr("daptune.clip.prefix.LINE_TOKENS", 8)
    clip, other = made_up_clip(), made_up_clip(seed=5)
    blocks = list(other.text.transformer.blocks)
    weight = blocks[0].attn.in_proj_weight.requires_grad_()
    context = torch.randn(1, 5, 16)
    suffixes = Suffixes.build(LetterTokenizer(), NAMES, 5)
    ours = clip.text.features(context, suffixes, through=blocks)[0]
    rows = []
    for name in NAMES:
        x, eot = whole_prompt(clip, name, context[0])
        x = x + clip.text.positional_embedding[: len(x)]
        for block in blocks:
            x = plain_block(block, x, True, "quick_gelu")
        rows.append(plain_norm(clip.text.ln_final, x[eot : eot + 1])[0] @ clip.text.text_projection)
    plain = torch.stack(rows)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    (found,) = torch.autograd.grad(ours.square().sum(), weight)
    (expected,) = torch.autograd.grad(plain.square().sum(), weight)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("contexts", [1, 2])
def test_lines_go_through_in_chunks_that_are_computed_anew(contexts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for 5 lines of one context is room for 2 of two; each chunk is computed once more where there is a backward,
    and not where one chunk holds all."""
    monkeypatch.setattr("daptune.clip.prefix.LINE_TOKENS", 4)
    suffixes = Suffixes.build(LetterTokenizer(), NAMES, 5)
    count, length = Lines.pack(suffixes.ids).tokens.shape
    assert count == 7
    clip, seen = made_up_clip(), []
    inner = prefix._suffix_features

    def counted(*given: Any) -> Tensor:
        seen.append((given[3].start, given[3].stop))
        return inner(*given)

    monkeypatch.setattr(prefix, "_suffix_features", counted)
    context = torch.randn(contexts, 5, 16, requires_grad=True)
    for lines in (5, 7, 0):
        monkeypatch.setattr("daptune.clip.towers.TEXT_CHUNK_TOKENS", max(1, lines * length))
        size = max(1, lines // contexts)
        chunks = [(first, min(first + size, 7)) for first in range(0, 7, size)]
        seen.clear()
        found = clip.text.features(context, suffixes)
        assert seen == chunks
        seen.clear()
        torch.autograd.grad(found.sum(), context)
        assert sorted(seen) == (chunks if len(chunks) > 1 else [])
        seen.clear()
        assert not clip.text.features(context.detach(), suffixes).requires_grad and seen == chunks
        with torch.no_grad():
            torch.testing.assert_close(clip.text.features(context, suffixes), found.detach())


def test_blocks_that_learn_are_computed_anew_for_a_context_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of one line: each is computed twice, or once where nothing learns."""
    monkeypatch.setattr("daptune.clip.prefix.LINE_TOKENS", 4)
    monkeypatch.setattr("daptune.clip.towers.TEXT_CHUNK_TOKENS", 1)
    clip, seen, inner = made_up_clip(), [], prefix._suffix_features

    def counted(*given: Any) -> Tensor:
        seen.append(given[3].start)
        return inner(*given)

    monkeypatch.setattr(prefix, "_suffix_features", counted)
    suffixes, context = Suffixes.build(LetterTokenizer(), NAMES, 5), torch.randn(1, 5, 16)
    blocks = list(made_up_clip(seed=5).text.transformer.blocks)
    weight = blocks[0].attn.in_proj_weight.requires_grad_()
    torch.autograd.grad(clip.text.features(context, suffixes, through=blocks).sum(), weight)
    assert sorted(seen) == [line for line in range(7) for _ in range(2)]
    seen.clear()
    monkeypatch.setattr(prefix, "checkpoint", None)
    clip.text.features(context, suffixes)
    assert seen == [*range(7)]


@pytest.mark.parametrize("names", [NAMES, GROUPS], ids=["one name", "several"])
def test_a_device_gets_its_copy_once(names: Any) -> None:
    suffixes = Suffixes.build(LetterTokenizer(), names, 5)
    here, there, made = torch.device("cpu"), torch.device("meta"), []

    def lines(device: torch.device) -> Lines:
        return suffixes.laid_out(device, lambda own: made.append(device) or Lines.pack(own.ids, device))

    own = lines(here)
    with torch.inference_mode():
        moved = lines(there)
    assert lines(there) is moved is not own is lines(here) and made == [here, there]
    for name in ("tokens", "positions", "visible", "ends", "order"):
        ours, copied = getattr(own, name), getattr(moved, name)
        assert copied.device == there and not copied.is_inference()
        assert copied.shape == ours.shape and copied.dtype == ours.dtype
    assert moved.before == own.before
    assert (suffixes.pool is None) == (names == NAMES)


@pytest.mark.parametrize(("names", "tensors"), [(NAMES, 5), (GROUPS, 8)], ids=["one name", "several"])
def test_nothing_crosses_to_the_device_after_the_first_time(names: Any, tensors: int) -> None:
    """`meta` stands for a GPU."""
    clip, context = made_up_clip().to("meta"), torch.randn(2, 5, 16, device="meta")
    suffixes = Suffixes.build(LetterTokenizer(), names, 5)
    for expected in (["_to_copy"] * tensors, []):
        with Crossings() as crossings:
            assert clip.text.features(context, suffixes).device.type == "meta"
        assert crossings.found == expected


def test_lines_are_of_nearly_equal_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest first, each to the line that is shortest so far: by hand."""
    monkeypatch.setattr("daptune.clip.prefix.LINE_TOKENS", 10)
    assert prefix._pack([3, 9, 4, 8, 2, 5]) == [[1, 4], [3, 0], [5, 2]]  # 31 tokens: 3 lines, of 11, 11 and 9
    assert prefix._pack([4]) == [[0]] and prefix._pack([7, 12]) == [[1, 0]]
    assert prefix._pack([30, 1]) == [[0], [1]]  # 3 lines, of which one stays empty
    lines = Lines.pack([[1] * 4, [2] * 2, [3] * 5])
    assert lines.tokens.tolist() == [[3, 3, 3, 3, 3, 1, 1, 1, 1, 2, 2]] and lines.before == (0, 3)
    assert lines.positions.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1]]
    assert lines.ends.tolist() == [4, 8, 10] and lines.order.tolist() == [1, 2, 0]
    tokens = [[1] * 6, [2] * 8, [3] * 7]
    two = Lines.pack(tokens)
    assert two.tokens.tolist() == [[2] * 8 + [0] * 5, [3] * 7 + [1] * 6] and two.before == (0, 1, 3)
    assert two.ends.tolist() == [7, 19, 25] and two.order.tolist() == [2, 0, 1]
    assert not two.visible[0, 8:, :8].any() and not two.visible[0, :8, 8:].any()
    assert not two.visible[1, 7:, :7].any() and two.visible[1, 12].tolist() == [False] * 7 + [True] * 6


@pytest.mark.parametrize("line", [1, 8, 1000])
def test_lines_hold_every_suffix_once_and_little_padding(line: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daptune.clip.prefix.LINE_TOKENS", line)
    tokenizer = LetterTokenizer()
    lines = Lines.pack(Suffixes.build(tokenizer, NAMES, 5).ids)
    tokens, visible = lines.tokens.flatten(), torch.block_diag(*lines.visible)
    for end, name in zip(lines.ends[lines.order], NAMES, strict=True):
        expected = [*tokenizer.encode(name.replace("_", " ") + "."), tokenizer.eot]
        seen = visible[end].nonzero().flatten()  # an EOT sees its whole suffix and nothing else
        assert tokens[seen].tolist() == expected
        assert lines.positions.flatten()[seen].tolist() == list(range(len(expected)))
    assert (tokens != 0).sum() == sum(len(name) + 2 for name in NAMES)
    longest = max(len(name) + 2 for name in NAMES)
    assert lines.tokens.shape[1] <= max(longest, line + longest)


def test_a_name_too_long_is_one_line() -> None:
    with pytest.raises(BackboneError, match="'abcdefghijklmno' takes 17 tokens, but 14 of the backbone's 20"):
        Suffixes.build(LetterTokenizer(), ["abcdefghijklmno"], 5)
    assert Suffixes.build(LetterTokenizer(), ["abcdefghijkl"], 5) is not None
    with pytest.raises(BackboneError, match="'abcdefghijklm' takes 15 tokens, but 14 "):
        Suffixes.build(LetterTokenizer(), ["abcdefghijklm"], 5)


def test_a_context_that_fills_the_backbone_is_one_line() -> None:
    with pytest.raises(BackboneError, match=r"17 context tokens leave no room .* 20: .* tokens, 16 at most"):
        Suffixes.build(LetterTokenizer(), ["a"], 17)
    assert Suffixes.build(LetterTokenizer(), ["a"], 16) is not None
