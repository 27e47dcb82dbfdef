"""The tokenizers of SigLIP and MetaCLIP 2: `tokenizer.json`, or the `spiece.model` that it is made from.

The `tokenizers` library runs them. The texts of SigLIP are canonicalised as in training (google-research/big_vision,
evaluators/proj/image_text/prompt_engineering.py; open_clip, src/open_clip/tokenizer.py, `canonicalize_text`), whatever
the file says: lower case, no punctuation, "_" is a blank. Without that, SigLIP loses about 12 points of zero-shot
accuracy (NVlabs/RADIO#142). The ends are added here: a file's own padding, truncation and template do not count.

SigLIP       32,000 or 250,000 pieces of a unigram model; </s> ends a text and fills it up
SigLIP 2     256,000 pieces of Gemma; <eos> ends a text, <pad> fills it up
MetaCLIP 2   901,629 pieces of XLM-V: <s> begins a text, </s> ends it, <pad> fills it up; case and punctuation stay. Its
             distilled models have 250,100 of mT5: no <s>, canonicalised
"""

import hashlib
import string
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ..errors import BackboneError, foreign
from ..regular import open_regular
from .tokenizer import TextTokenizer, clean, tidy

FILES = ("tokenizer.json", "spiece.model")
LARGEST = 128_000_000
"""Bytes of either file; Gemma's has 34 MB, and XLM-V's three times its pieces."""
_ENDS = (("<eos>", "<pad>"), ("</s>", "</s>"))
_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))


def canonical(text: str) -> str:
    """Text as SigLIP was trained on: `clean`, without punctuation, "_" as a blank."""
    return " ".join(clean(text).translate(_PUNCTUATION).split())


class FileTokenizer(TextTokenizer):
    """Text to the token ids of SigLIP, or with `eos_id` those of MetaCLIP 2."""

    def __init__(self, path: Path, *, context_length: int, rows: int, eos_id: int | None = None) -> None:
        """`rows` is the number of embeddings, `eos_id` that of the end of a text, where the tower reads it by its id.

        Raises BackboneError for a file of another family.
        """
        with foreign(lambda why: BackboneError(f"{path} cannot be read as a tokenizer ({why}); fetch it again.")):
            with open_regular(path) as file:
                content = file.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise ValueError(f"more than {LARGEST:,} bytes")
            self._engine = _of_pieces(content) if path.suffix == ".model" else Engine.from_buffer(content)
        self._engine.no_padding()
        self._engine.no_truncation()
        self.digest = hashlib.sha256(content).hexdigest()
        self.context_length = context_length
        self.vocab_size = self._engine.get_vocab_size()
        ends = _ENDS if eos_id is None else (("</s>", "<pad>"),)
        known = [(self._engine.token_to_id(end), self._engine.token_to_id(pad)) for end, pad in ends]
        found = next(((end, pad) for end, pad in known if end is not None and pad is not None), None)
        if found is None or self.vocab_size > rows or eos_id not in (None, found[0]):
            family, wanted = ("SigLIP", "</s>, or <eos> and <pad>")
            if eos_id is not None:
                family, wanted = ("MetaCLIP 2", f"<pad> and </s> as piece {eos_id}")
            raise BackboneError(
                f"{path} is not the tokenizer of this {family}: expected at most {rows:,} pieces with {wanted}, found "
                f"{self.vocab_size:,}{'' if found and self.vocab_size > rows else ' without them'}; fetch it from its "
                "repository."
            )
        self.eot, self.pad = found
        first = None if eos_id is None else self._engine.token_to_id("<s>")
        self.start = () if first is None else (first,)
        self._clean = canonical if first is None else tidy
        self.multilingual = eos_id is not None or self.eot != self.pad  # MetaCLIP 2, and SigLIP 2 of Gemma
        self._engine.encode_special_tokens = True
        self._ends = {str(self._engine.id_to_token(index)) for index in (*self.start, *found)}

    def encode(self, text: str) -> list[int]:
        """Ids of the cleaned text, without start and end; none where SigLIP's has only punctuation."""
        if not isinstance(text, str):
            raise BackboneError(f"a text must be a string, found {type(text).__name__}: {text!r}.")
        plain = self._clean(text)
        for end in self._ends:  # a name inside a text is plain text, but a unigram model has it as a piece
            plain = plain.replace(end, f"{end[0]} {end[1:]}")
        ids = list(self._engine.encode(plain, add_special_tokens=False).ids) if plain else []
        if self.eot in ids:
            raise BackboneError(f"the text {text[:60]!r} holds the tokenizer's own end of a text: leave that out.")
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        wanted = list(map(int, ids))
        if not all(0 <= index < self.vocab_size for index in wanted):
            raise BackboneError(f"a token id must lie in 0..{self.vocab_size - 1}, found {wanted}.")
        return str(self._engine.decode(wanted, skip_special_tokens=False))


def _of_pieces(content: bytes) -> Engine:
    """A unigram model of sentencepiece (sentencepiece_model.proto): pieces with scores, and how text is normalised."""
    pieces: list[tuple[str, float]] = []
    charsmap, unknown = b"", 0
    for field, value in _fields(content):
        if field == 1 and isinstance(value, bytes):  # SentencePiece: 1 piece, 2 score, 3 type (2: unknown)
            own = dict(_fields(value))
            score = own.get(2, b"\0\0\0\0")
            if own.get(3) == 2:
                unknown = len(pieces)
            pieces.append((_bytes(own[1]).decode(), struct.unpack("<f", _bytes(score))[0]))
        elif field == 3 and isinstance(value, bytes):  # NormalizerSpec: 2 precompiled_charsmap
            charsmap = _bytes(dict(_fields(value)).get(2, b""))
    engine = Engine(models.Unigram(pieces, unknown, False))
    if charsmap:
        engine.normalizer = normalizers.Precompiled(charsmap)
    engine.pre_tokenizer = pre_tokenizers.Metaspace()
    engine.decoder = decoders.Metaspace()
    return engine


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of the fields of a message of Protocol Buffers; raises ValueError for anything else."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = content[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(content):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"a field of type {kind}")
        length = {1: 8, 5: 4}.get(kind) or varint()
        if place + length > len(content):
            raise ValueError("it is cut short")
        yield key >> 3, content[place : place + length]
        place += length


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number in the place of text")
    return value
