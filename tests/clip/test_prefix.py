"""The shared-prefix tower against the whole padded prompt of each class run through the plain tower."""

import pytest
import torch
from torch import Tensor

from daptune.clip.model import CLIP
from daptune.clip.prefix import Suffixes, shared_prefix_features
from daptune.errors import BackboneError

from .test_model import made_up_clip, plain_block, plain_norm, plain_text

NAMES = ["ab", "c", "defg_h", "ij", "k", "lmnop", "q"]


class LetterTokenizer:
    """One token a character; stands for the BPE."""

    context_length, sot, eot = 20, 58, 59

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 50 + 1 for letter in text]


def whole_prompt(clip: CLIP, name: str, context: Tensor) -> tuple[Tensor, int]:
    """[SOS | context | name . EOT | padding] as token embeddings (T, W), and the EOT's position."""
    tokenizer = LetterTokenizer()
    ids = [*tokenizer.encode(name.replace("_", " ") + "."), tokenizer.eot]
    used = 1 + len(context) + len(ids)
    padded = torch.tensor(ids + [0] * (tokenizer.context_length - used))
    embedded = clip.token_embedding(padded)
    return torch.cat([clip.token_embedding.weight[tokenizer.sot][None], context, embedded]), used - 1


@pytest.mark.parametrize("chunk", [10_000, 12, 1])
@pytest.mark.parametrize("contexts", [1, 3])
def test_equals_whole_prompts_with_gradients(contexts: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daptune.clip.model.TEXT_CHUNK_TOKENS", chunk)
    clip = made_up_clip()
    generator = torch.Generator().manual_seed(2)
    context = torch.randn(contexts, 5, 16, generator=generator, requires_grad=True)
    weights = torch.randn(contexts, len(NAMES), 24, generator=generator)
    suffixes = Suffixes.build(LetterTokenizer(), NAMES, 5)  # type: ignore[arg-type]
    ours = shared_prefix_features(clip, context, suffixes)
    plain = torch.stack(
        [torch.stack([plain_text(clip, *whole_prompt(clip, name, c)) for name in NAMES]) for c in context]
    )
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    (found,) = torch.autograd.grad((ours * weights).sum(), context)
    (expected,) = torch.autograd.grad((plain * weights).sum(), context)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("per_context", [False, True])
def test_deep_prompts_replace_the_first_positions(depth: int, per_context: bool) -> None:
    clip = made_up_clip()
    context = torch.randn(2, 5, 16)
    deep = torch.randn(*((2,) if per_context else ()), depth - 1, 3, 16, requires_grad=True)
    suffixes = Suffixes.build(LetterTokenizer(), NAMES, 5)  # type: ignore[arg-type]
    ours = shared_prefix_features(clip, context, suffixes, deep)
    rows = []
    for n, one in enumerate(context):
        for name in NAMES:
            x, eot = whole_prompt(clip, name, one)
            x = x + clip.positional_embedding[: len(x)]
            for layer, block in enumerate(clip.transformer.blocks):
                if 0 < layer < depth:
                    x = torch.cat([x[:1], (deep[n] if per_context else deep)[layer - 1], x[4:]])
                x = plain_block(block, x, True, "quick_gelu")
            rows.append(plain_norm(clip.ln_final, x[eot : eot + 1])[0] @ clip.text_projection)
    plain = torch.stack(rows).unflatten(0, (2, -1))
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    (found,) = torch.autograd.grad(ours.square().sum(), deep)
    (expected,) = torch.autograd.grad(plain.square().sum(), deep)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_no_context_is_plain_text_and_trimmed_agrees() -> None:
    clip = made_up_clip()
    tokenizer = LetterTokenizer()
    suffixes = Suffixes.build(tokenizer, NAMES, 0)  # type: ignore[arg-type]
    ours = shared_prefix_features(clip, torch.empty(1, 0, 16), suffixes)[0]
    prompts = [whole_prompt(clip, name, torch.empty(0, 16)) for name in NAMES]
    lengths = torch.tensor([eot + 1 for _, eot in prompts])
    trimmed = clip.encode_embeddings(torch.stack([embedded for embedded, _ in prompts]), lengths)
    torch.testing.assert_close(ours, trimmed, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("line", [1, 8, 1000])
def test_lines_hold_every_suffix_once_and_little_padding(line: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daptune.clip.prefix.LINE_TOKENS", line)
    tokenizer = LetterTokenizer()
    suffixes = Suffixes.build(tokenizer, NAMES, 5)  # type: ignore[arg-type]
    tokens, visible = suffixes.tokens.flatten(), torch.block_diag(*suffixes.visible)
    for end, name in zip(suffixes.ends[suffixes.order], NAMES, strict=True):
        expected = [*tokenizer.encode(name.replace("_", " ") + "."), tokenizer.eot]
        seen = visible[end].nonzero().flatten()  # an EOT sees its whole suffix and nothing else
        assert tokens[seen].tolist() == expected
        assert suffixes.positions.flatten()[seen].tolist() == list(range(len(expected)))
    assert (tokens != 0).sum() == sum(len(name) + 2 for name in NAMES)
    longest = max(len(name) + 2 for name in NAMES)
    assert suffixes.tokens.shape[1] <= max(longest, line + longest)


def test_a_name_too_long_is_one_line() -> None:
    with pytest.raises(BackboneError, match="'abcdefghijklmno' takes 17 tokens, but 14 of the backbone's 20"):
        Suffixes.build(LetterTokenizer(), ["abcdefghijklmno"], 5)  # type: ignore[arg-type]


def test_a_context_that_fills_the_backbone_is_one_line() -> None:
    with pytest.raises(BackboneError, match=r"17 context tokens leave no room .* 20: .* tokens, 16 at most"):
        Suffixes.build(LetterTokenizer(), ["a"], 17)  # type: ignore[arg-type]
    assert Suffixes.build(LetterTokenizer(), ["a"], 16) is not None  # type: ignore[arg-type]
