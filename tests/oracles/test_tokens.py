"""Tokens equal open_clip's: the goldens are what it says today, and no single character of Unicode is treated apart."""

import json
import unicodedata

from daptune.clip.tokenizer import Tokenizer, clean

from .conftest import oracle
from .make_goldens import GOLDENS, tokens


def test_goldens_are_up_to_date() -> None:
    assert json.loads((GOLDENS / "tokens.json").read_text()) == [list(pair) for pair in tokens()]


def test_every_character_is_cleaned_alike() -> None:
    theirs = oracle("open_clip.tokenizer").get_clean_fn("lower")
    texts = (f"a{chr(code)}b {chr(code)}" for code in range(0x110000))
    assert [text for text in texts if clean(text) != theirs(text)] == []


def test_characters_are_split_alike() -> None:
    """Every sixteenth code point that has a name; the two regular-expression engines know different years' Unicode."""
    theirs, ours = oracle("open_clip.tokenizer").SimpleTokenizer(), Tokenizer()
    codes = [code for code in range(0x110000) if (code < 0x3000 or code % 16 == 0) and unicodedata.name(chr(code), "")]
    texts = (f"a{chr(code)}b {chr(code)}" for code in codes)
    assert [text for text in texts if ours.encode(text) != theirs.encode(text)] == []
