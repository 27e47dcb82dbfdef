"""Byte-pair encoding of CLIP, using the `tokenizers` library.

The vocabulary is built from CLIP's first 48,894 merges (`bpe_merges.txt.gz`, see `bpe_merges.md`), or read with the
merges from a backbone's `tokenizer.json`; cleaning and splitting are always CLIP's. Ids equal those of open_clip's
SimpleTokenizer (src/open_clip/tokenizer.py) with one exception: the names of the start and end tokens inside a text are
plain text, so that no class name can end a prompt early.
"""

import gzip
import html
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import torch
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Engine
from torch import Tensor

from ..errors import BackboneError, foreign
from ..foreign import read_json

MERGES = Path(__file__).with_name("bpe_merges.txt.gz")
LARGEST, MOST_VALUES = 32_000_000, 2_000_000
"""Bytes and values of a tokenizer.json; CLIP's has 3.6 MB and 250,000."""
_WORD_END = "</w>"
# U+0345 is dropped: it folds to iota, so that open_clip's case-insensitive pattern matches it in no group
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+"
_NAMES = (("<start_of_text>", "<end_of_text>"), ("<|startoftext|>", "<|endoftext|>"))


def tidy(text: str) -> str:
    """Text as cleaned by open_clip: repaired by ftfy, HTML entities resolved, single blanks."""
    if not (text.isascii() and text.isprintable() and "&" not in text):  # otherwise nothing needs repair
        from ftfy import fix_text

        text = html.unescape(html.unescape(fix_text(text)))
    return " ".join(text.split())


def clean(text: str) -> str:
    """`tidy`, in lower case."""
    return tidy(text).lower()


def _alphabet() -> dict[int, str]:
    """A visible character for each byte: its own, or one from U+0100. The order gives the ids."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(0x100 + i) for i, byte in enumerate(hidden)}


@cache
def _clip_model() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's vocabulary (49,408 entries, start and end last) and merges."""
    letters = list(_alphabet().values())
    with gzip.open(MERGES, "rt", encoding="utf-8") as file:
        pairs = [line.split() for line in file]
    merges = [(first, second) for first, second in pairs]
    words = [*letters, *(letter + _WORD_END for letter in letters), *(a + b for a, b in merges), *_NAMES[0]]
    return {word: index for index, word in enumerate(words)}, merges


def _read_model(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    with foreign(lambda why: BackboneError(f"{path} cannot be read as a tokenizer ({why}); fetch the backbone again.")):
        content = read_json(path, most=LARGEST, values=MOST_VALUES)
        model = content["model"]
        if model["type"] != "BPE" or model.get("end_of_word_suffix") != _WORD_END:
            raise BackboneError(
                f"{path} is not a CLIP tokenizer: expected byte-pair encoding with word ends {_WORD_END!r}, "
                f"found type {model['type']!r}; use a CLIP with CLIP's own text vocabulary."
            )
        vocabulary = {str(word): int(index) for word, index in model["vocab"].items()}
        vocabulary |= {str(token["content"]): int(token["id"]) for token in content.get("added_tokens", ())}
        if not all(0 <= index < 2 * len(vocabulary) for index in vocabulary.values()):
            raise ValueError("its numbers of tokens are not those of a list")
        pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        merges = [(str(first), str(second)) for first, second in pairs]
        return vocabulary, merges


class TextTokenizer(ABC):
    """Text to the token ids of a text tower.

    `context_length` T is the number of positions of the tower, `vocab_size` the number of ids; every text has the ids
    `start` before it and `eot` behind it, and is filled up to T with `pad`.
    """

    context_length: int
    vocab_size: int
    start: tuple[int, ...]
    eot: int
    pad: int
    multilingual: bool = False
    """Whether it has words of many languages, so that one of single letters or bytes is no sign of an unknown one."""
    digest: str = ""
    """SHA-256 of the file of a tokenizer whose texts a CLIP of these weights depends on; recorded in adapters."""

    @property
    def spelling(self) -> Callable[[str], list[int]] | None:
        """What shows words that it never saw (`daptune.names.unreadable`): `encode`, or None if it is multilingual."""
        return None if self.multilingual else self.encode

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of the cleaned text, without start and end."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, including start and end."""

    def row(self, text: str) -> list[int]:
        """Ids of a whole text: start, text, end. Raises BackboneError for more than T; nothing is truncated."""
        row = [*self.start, *self.encode(text), self.eot]
        if len(row) > self.context_length:
            shown = text if len(text) <= 60 else f"{text[:57]}..."
            raise BackboneError(
                f"the text {shown!r} has {len(row)} tokens with its start and end, the limit is "
                f"{self.context_length}: shorten it, or learn fewer text tokens."
            )
        return row

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Ids (C, T) int64 of whole texts, then `pad`. Raises BackboneError for a text of more than T tokens."""
        rows = [self.row(text) for text in ([texts] if isinstance(texts, str) else texts)]
        tokens = torch.full((len(rows), self.context_length), self.pad, dtype=torch.int64)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = torch.tensor(row)
        return tokens


class Tokenizer(TextTokenizer):
    """Text to CLIP's token ids; `eot` is the highest, and the tower never sees what follows it."""

    pad = 0

    def __init__(self, path: Path | None = None, *, context_length: int = 77) -> None:
        """Uses CLIP's vocabulary, or the `tokenizer.json` at `path`. Raises BackboneError for an incompatible file."""
        vocabulary, merges = _clip_model() if path is None else _read_model(path)
        self.context_length = context_length
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        if self.vocab_size < 2:
            raise BackboneError(f"{path} has an empty vocabulary; fetch it again.")
        self.sot, self.eot = next(
            ((vocabulary[a], vocabulary[b]) for a, b in _NAMES if a in vocabulary and b in vocabulary),
            (self.vocab_size - 2, self.vocab_size - 1),
        )
        self.start = (self.sot,)
        if self.eot != self.vocab_size - 1:
            raise BackboneError(
                f"{path}: the end token must have the highest id ({self.vocab_size - 1}), found {self.eot}; "
                "use a CLIP with CLIP's own text vocabulary."
            )
        self._words = {index: word for word, index in vocabulary.items()}
        self._bytes = {character: byte for byte, character in _alphabet().items()}
        with foreign(lambda why: BackboneError(f"{path}: the tokenizer is inconsistent ({why}); fetch it again.")):
            self._engine = Engine(models.BPE(vocabulary, merges, end_of_word_suffix=_WORD_END))
        bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        split = pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True)
        self._engine.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_of])

    def encode(self, text: str) -> list[int]:
        """Ids of the cleaned, lower-cased text, without start and end."""
        if not isinstance(text, str):
            raise BackboneError(f"a text must be a string, found {type(text).__name__}: {text!r}.")
        return list(self._engine.encode(clean(text), add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, including start and end; a space follows every word."""
        text = bytearray()
        for index in map(int, ids):
            if index not in self._words:
                raise BackboneError(f"a token id must lie in 0..{self.vocab_size - 1}, found {index}.")
            word = self._words[index]
            end = b" " if word.endswith(_WORD_END) else b""
            if index in (self.sot, self.eot):
                text += word.encode()
            else:
                text += bytes(self._bytes[letter] for letter in word.removesuffix(_WORD_END)) + end
        return text.decode("utf-8", errors="replace")
