"""Damaged and hostile forms of a valid file, drawn from a seeded generator."""

import json
import random
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 10**7, 2**31, 2**62, 1e308, -0.5, "", "x", "\x1b]0;pwned\x07", "../../x", "e" * 3000, [], {},
    [[]], [None] * 50, {"a": {}}, ["x"] * 300, "n" + "9" * 40, "hf:someone/else", "\u202e", "\U0001f600" * 200,
)  # fmt: skip
"""Values of other types, sizes and meanings than are expected."""
RAW = (
    "NaN",
    "1e999",
    "9" * 5000,
    '"\\ud800"',
    "[" * 2000 + "]" * 2000,
    '{"a":' * 400 + "1" + "}" * 400,
    "[[],[],[]",
    "-",
)
"""JSON that Python's own reader takes or fails on in its own way."""
_NUMBERS = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def mutate(content: bytes, chance: random.Random) -> bytes:
    """One to three changes of bytes, or, of JSON, often a change of a value."""
    if content[:1] in b"{[" and chance.random() < 0.6:
        return _structured(content, chance)
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 3))):
        chance.choice((_flip, _flip, _cut, _splice, _number, _repeat))(found, chance)
    return bytes(found)


def _flip(found: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 4, 16))):
        if found:
            found[chance.randrange(len(found))] = chance.randrange(256)


def _cut(found: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(found) + 1)
    del found[start : len(found) if chance.random() < 0.5 else start + chance.randrange(64)]


def _splice(found: bytearray, chance: random.Random) -> None:
    start, to = (chance.randrange(len(found) + 1) for _ in range(2))
    found[to:to] = found[start : start + chance.randrange(200)]


def _number(found: bytearray, chance: random.Random) -> None:
    """A size that a field may claim, in any width and order, in the first kilobyte or anywhere."""
    width, order = chance.choice((1, 2, 4, 8)), chance.choice(("little", "big"))
    value = chance.choice(_NUMBERS) % 2 ** (8 * width)
    start = chance.randrange(min(len(found), chance.choice((200, 1000, 10**9))) + 1)
    found[start : start + width] = value.to_bytes(width, order)  # type: ignore[arg-type]


def _repeat(found: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(found) + 1)
    found[start:start] = bytes(found[start : start + chance.choice((1, 2, 8))]) * chance.choice((10, 1000, 20_000))


def _structured(content: bytes, chance: random.Random) -> bytes:
    line, *others = content.splitlines(keepends=True) if b"}\n{" in content else [content]
    value = json.loads(line)
    for _ in range(chance.choice((1, 1, 2))):
        place = value
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and chance.random() < 0.7:
                place = place[key]
                continue
            if chance.random() < 0.15:
                del place[key]
            elif isinstance(place, dict) and chance.random() < 0.15:
                place[chance.choice(("\x1b[2J", "\U0001f600" * 100, "", key + "_"))] = place.pop(key)
            else:
                place[key] = "@raw@" if chance.random() < 0.2 else chance.choice(HOSTILE)
            break
    text = json.dumps(value).replace('"@raw@"', chance.choice(RAW))
    return text.encode() + b"".join([b"\n", *others] if others else [])
