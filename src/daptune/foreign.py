"""Bytes from outside, read within bounds: files of a stated size, JSON, TOML, the header of safetensors, zip folders.

Every bound is a number of this file, or follows from the size of what is read; it is checked where the claim is read,
before memory is taken. Functions raise OSError or ValueError; `daptune.errors.foreign` makes them one line.
"""

import json
import math
import re
import struct
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from daptune.regular import open_regular
from daptune.text import printable

JSON_BYTES = 256_000_000
"""Bytes of a JSON file; files with a narrower purpose have lower limits."""
JSON_VALUES = 8_000_000
"""Values (numbers, texts, lists, objects) of a JSON file: about 600 MB at most, and 2 million rows of a split."""
JSON_DEPTH = 32
"""Lists and objects within each other."""
LARGEST_WHOLE = 2**63 - 1
"""Whole numbers have 64 bits, as everywhere else."""
TOML_BYTES = 1_000_000
TOML_PARTS = 16
"""Parts of a dotted key; reading one takes the square of them."""
HEADER_BYTES = 8_000_000
"""Bytes of a safetensors header; that of the largest CLIP has 300 kB."""
ZIP_ENTRIES = 100_000
"""Files of a zip that is a checkpoint; the largest CLIP has about 2,000."""
_PART = 1 << 20
_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4,
    "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
_KEY = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_DOTTED = re.compile(rf"(?<![\w.-]){_KEY}(?:[ \t]*+\.[ \t]*+{_KEY}){{{TOML_PARTS}}}")
_ZIP_END = struct.Struct("<4s4H2LH")
_ZIP_COMMENT = 65_535


class TooLarge(ValueError):
    """More than a limit allows."""


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a file of at most `most` bytes. Raises OSError, and TooLarge for a larger one."""
    content = bytearray()  # in parts: a read takes the memory that it asks for, whatever comes
    with open_regular(path) as file:
        while block := file.read(_PART):
            content += block
            if len(content) > most:
                raise TooLarge(f"it has more than {megabytes(most)}")
    return bytes(content)


def parse_json(
    content: str | bytes,
    *,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
    most: int = JSON_BYTES,
    values: int = JSON_VALUES,
    depth: int = JSON_DEPTH,
    nan: bool = False,
) -> Any:
    """A JSON text in UTF-8, with or without its byte order mark. Raises ValueError.

    Not taken: more than `most` bytes, `values` values or `depth` levels, NaN unless `nan`, numbers that no float can
    hold, and texts with half a character (a lone surrogate), which nothing can write again. `pairs` makes an object of
    its (key, value) pairs, e.g. to notice a key that occurs twice; default: a dict.
    """
    if len(content) > most:
        raise TooLarge(f"it has more than {megabytes(most)}")
    marks: list[Any] = list("[{,") if isinstance(content, str) else [b"[", b"{", b","]
    if sum(map(content.count, marks)) > values:  # also counts those in texts
        raise TooLarge(f"it has more than {values:,} values")
    text = content if isinstance(content, str) else content.decode("utf-8-sig")
    try:
        found = json.loads(
            text.removeprefix("\ufeff"),
            object_pairs_hook=pairs,
            parse_int=_whole,
            parse_float=_number,
            parse_constant=None if nan else _constant,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_json(found, depth, nan)
    return found


def read_json(
    path: Path,
    *,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
    most: int = JSON_BYTES,
    values: int = JSON_VALUES,
) -> Any:
    """`parse_json` of a file. Raises OSError or ValueError."""
    return parse_json(read_bytes(path, most), pairs=pairs, most=most, values=values)


def json_lines(content: str | bytes) -> Iterator[tuple[int, Any]]:
    """Yield (number from 1, value) of each line that is not blank; the value of a damaged line is its ValueError.

    The last line may be truncated if the process was killed.
    """
    lines: Any = content.split("\n" if isinstance(content, str) else b"\n")  # type: ignore[arg-type]
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except ValueError as error:
                yield number, error


def parse_toml(content: bytes) -> dict[str, Any]:
    """A TOML text in UTF-8. Raises ValueError, also for one that would take long to read."""
    if len(content) > TOML_BYTES:
        raise TooLarge(f"it has more than {megabytes(TOML_BYTES)}")
    text = content.decode("utf-8-sig").replace("\r\n", "\n")
    if _DOTTED.search(text):
        raise TooLarge(f"a key has more than {TOML_PARTS} parts")
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_json(found, JSON_DEPTH)
    return found


class Entry(NamedTuple):
    """A tensor as the header of a safetensors file has it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_header(file: IO[bytes], size: int) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors and the metadata in the header of a safetensors file of `size` bytes. Raises ValueError.

    Their bytes must be those that the file has: no tensor is larger than what is stored of it.
    (https://github.com/huggingface/safetensors, "Format")
    """
    head = file.read(8)
    length = int.from_bytes(head, "little")
    if len(head) < 8 or not 2 <= length <= size - 8:
        raise ValueError("it is truncated")
    if length > HEADER_BYTES:
        raise TooLarge(f"its header has more than {megabytes(HEADER_BYTES)}")
    content = parse_json(file.read(length), depth=4)
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is no object of texts")
    entries = {}
    total = 0
    for name, about in content.items():
        shape, (begin, end) = tuple(about["shape"]), about["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
            raise ValueError(f"the shape of {name!r} is {about['shape']!r}")
        entry = Entry(str(about["dtype"]), shape)
        width = _ITEM_BYTES.get(entry.dtype)
        if width is None or end - begin != width * entry.elements:
            raise ValueError(f"{name!r} of shape {list(shape)} and type {entry.dtype} has {end - begin} bytes")
        total += end - begin
        entries[name] = entry
    if total != size - 8 - length:
        raise ValueError(f"its tensors have {total} bytes and the file {size - 8 - length}")
    return entries, metadata


def open_zip(file: IO[bytes], entries: int = ZIP_ENTRIES) -> zipfile.ZipFile:
    """A zip of at most so many entries, whose list alone is read. Raises ValueError or zipfile.BadZipFile."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _ZIP_END.size - _ZIP_COMMENT))
    tail = file.read()
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _ZIP_END.size:
        raise zipfile.BadZipFile("it is truncated")
    _, _, _, _, count, length, _, _ = _ZIP_END.unpack_from(tail, place)
    if count == 0xFFFF or length == 0xFFFFFFFF:  # the larger form: its own record has 64 bits for each
        larger = tail.rfind(b"PK\x06\x06", 0, place)
        count, length = struct.unpack_from("<2Q", tail, larger + 32) if larger >= 0 else (count, length)
    if count > entries or length > entries * 512:  # an entry has 46 bytes and its name
        raise TooLarge(f"it lists {count:,} files in {length:,} bytes; at most {entries:,} are read")
    file.seek(0)
    return zipfile.ZipFile(file)


def megabytes(size: int) -> str:
    """8_000_000 -> "8 MB"; "300 kB" below one."""
    return f"{size / 1e6:g} MB" if size >= 1_000_000 else f"{size / 1e3:g} kB"


def _check_json(value: Any, depth: int, nan: bool = False) -> None:
    """ValueError for texts that nothing can write, and for more than `depth` levels; without recursion."""
    waiting: list[tuple[Any, int]] = [([value], -1)]
    while waiting:
        group, level = waiting.pop()
        if level >= depth:
            raise ValueError(f"nested more than {depth} levels deep")
        for item in group:
            if isinstance(item, str):
                if not item.isascii() and not item.isprintable():
                    _check_text(item)
            elif isinstance(item, dict):
                waiting += [(item, level + 1), (item.values(), level + 1)]
            elif isinstance(item, list | tuple):
                waiting.append((item, level + 1))
            elif isinstance(item, float) and not nan and not math.isfinite(item):
                raise ValueError(f"it has the number {item}")
            elif isinstance(item, int) and not -LARGEST_WHOLE <= item <= LARGEST_WHOLE:
                raise ValueError("it has a whole number of more than 64 bits")


def _check_text(text: str) -> None:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"the text '{printable(text, 40)}' has half a character (a lone surrogate)")


def _whole(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"a whole number has {len(digits):,} digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:20]} is too large")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
