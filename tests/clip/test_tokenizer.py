"""Tokens equal open_clip's goldens; a folder's own vocabulary is honoured; nothing is cut off silently."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from tokenizers import models, normalizers, pre_tokenizers

from daptune.clip.tokenizer import Tokenizer, _alphabet, clean
from daptune.errors import BackboneError

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "tokens.json").read_text())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


def test_clip_vocabulary(tokenizer: Tokenizer) -> None:
    assert (tokenizer.vocab_size, tokenizer.sot, tokenizer.eot, tokenizer.context_length) == (49408, 49406, 49407, 77)


def test_goldens_of_open_clip(tokenizer: Tokenizer) -> None:
    assert len(GOLDENS) >= 200
    wrong = [(text, ids, tokenizer.encode(text)) for text, ids in GOLDENS if tokenizer.encode(text) != ids]
    assert wrong == []


def test_rows_are_start_text_end_and_zeros(tokenizer: Tokenizer) -> None:
    rows = tokenizer(["a photo of a cat.", ""])
    assert rows.shape == (2, 77)
    assert rows.dtype == torch.int64
    assert rows[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 269, 49407]
    assert rows[0, 8:].sum() == 0
    assert rows[1, :3].tolist() == [49406, 49407, 0]
    assert tokenizer("a photo of a cat.").equal(rows[:1])
    assert tokenizer([]).shape == (0, 77)


def test_too_long(tokenizer: Tokenizer) -> None:
    assert tokenizer("x " * 75).shape == (1, 77)
    with pytest.raises(
        BackboneError, match=r"'dog dog .*\.\.\.' has 102 tokens with its start and end, the limit is 77"
    ):
        tokenizer(["short", "dog " * 100])


def test_other_types(tokenizer: Tokenizer) -> None:
    with pytest.raises(BackboneError, match="must be a string, found int: 3"):
        tokenizer(["a", 3])  # type: ignore[list-item]
    with pytest.raises(BackboneError, match=r"0\.\.49407, found 49408"):
        tokenizer.decode([49408])


def test_names_of_the_special_tokens_are_plain_text(tokenizer: Tokenizer) -> None:
    for text in ("<end_of_text>", "<|endoftext|>", "<start_of_text>"):
        ids = tokenizer.encode(text)
        assert len(ids) > 1
        assert max(ids) < tokenizer.sot


@given(st.text(max_size=40))
def test_decode_gives_the_words_back(text: str) -> None:
    tokenizer = _SHARED
    ids = tokenizer.encode(text)
    # U+0345 is lost by design, as in open_clip
    assert "".join(tokenizer.decode(ids).split()) == "".join(clean(text).replace("\u0345", "").split())


_SHARED = Tokenizer()


def write_trimmed(path: Path) -> dict[str, int]:
    """A small vocabulary in the file format of `tokenizers`, with a foreign normaliser and splitter."""
    letters = list(_alphabet().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    engine = Engine(models.BPE(vocabulary, [("c", "a"), ("ca", "t</w>")], end_of_word_suffix="</w>"))
    engine.normalizer = normalizers.Lowercase()
    engine.pre_tokenizer = pre_tokenizers.ByteLevel()
    engine.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    engine.enable_padding(length=9)
    engine.enable_truncation(3)
    engine.save(str(path))
    return vocabulary


def test_a_folders_own_vocabulary(tmp_path: Path) -> None:
    vocabulary = write_trimmed(tmp_path / "tokenizer.json")
    tokenizer = Tokenizer(tmp_path / "tokenizer.json", context_length=8)
    assert (tokenizer.vocab_size, tokenizer.sot, tokenizer.eot) == (516, 514, 515)
    assert tokenizer.encode("Cat &amp; cats") == [
        *(vocabulary[word] for word in ("cat</w>", "&</w>", "ca", "t", "s</w>"))
    ]
    assert tokenizer("cat").tolist() == [[514, vocabulary["cat</w>"], 515, 0, 0, 0, 0, 0]]
    assert tokenizer.decode([514, 513, 515]) == "<|startoftext|>cat <|endoftext|>"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"model": {"type": "WordPiece", "vocab": {}}}', "found type 'WordPiece'"),
        ('{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "end_of_word_suffix": null}}', "word ends"),
        ('{"model": {"type": "BPE", "vocab": {}, "merges": [], "end_of_word_suffix": "</w>"}}', "empty"),
        (
            '{"model": {"type": "BPE", "vocab": {"a": 0, "c": 1}, "merges": ["a b"], "end_of_word_suffix": "</w>"}}',
            "inconsistent",
        ),
        (
            '{"model": {"type": "BPE", "vocab": {"<start_of_text>": 0, "<end_of_text>": 1, "a": 2}, "merges": [], '
            '"end_of_word_suffix": "</w>"}}',
            "highest id",
        ),
    ],
)
def test_files_that_are_no_clip_tokenizer(tmp_path: Path, content: str, word: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(BackboneError, match=word) as caught:
        Tokenizer(path)
    assert "\n" not in str(caught.value)


def test_text_is_repaired_as_ftfy_repairs_it() -> None:
    """Each kind by hand: mojibake, entities in either case, ligatures, full width, quotes, colours, blanks."""
    repaired = {
        "schÃ¶n": "schön", "caf&eacute; &EACUTE;": "café é", "ﬁsh": "fish", "ＣＬＩＰ": "clip", "it’s": "it's",
        "\x1b[31mred\x1b[0m fox": "red fox", " A\tPhoto\n of  a ": "a photo of a", "R&amp;amp;D": "r&d",
    }  # fmt: skip
    assert {text: clean(text) for text in repaired} == repaired
