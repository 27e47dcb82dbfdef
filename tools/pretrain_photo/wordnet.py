"""WordNet's nouns from Debian's package `wordnet-base`: names, hypernyms, glosses, by WordNet id."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FOLDER = Path("/usr/share/wordnet")


@dataclass
class Noun:
    """One meaning: its names (commonest first), the ids above it, and its gloss without examples."""

    wordnet_id: str
    names: list[str]
    above: list[str]
    gloss: str
    field: int
    below: list[str] = field(default_factory=list)


@cache
def nouns() -> dict[str, Noun]:
    """Return all nouns by WordNet id (`n` and eight digits), in the order of the file."""
    found: dict[str, Noun] = {}
    for line in (FOLDER / "data.noun").read_text().splitlines():
        if line.startswith(" "):
            continue
        data, _, gloss = line.partition(" | ")
        parts = data.split(" ")
        count = int(parts[3], 16)
        names = [parts[4 + 2 * i].replace("_", " ") for i in range(count)]
        rest = parts[4 + 2 * count :]
        pointers = [rest[1 + 4 * i : 5 + 4 * i] for i in range(int(rest[0]))]
        above = [f"n{p[1]}" for p in pointers if p[0] in ("@", "@i") and p[2] == "n"]
        found[f"n{parts[0]}"] = Noun(f"n{parts[0]}", names, above, gloss.split('; "')[0].strip(), int(parts[1]))
    for key, noun in found.items():
        for parent in noun.above:
            found[parent].below.append(key)
    return found


def chain(wordnet_id: str) -> list[str]:
    """Return the ids above a noun, nearest first, along the first hypernym of each."""
    table, out = nouns(), []
    while table[wordnet_id].above:
        wordnet_id = table[wordnet_id].above[0]
        out.append(wordnet_id)
    return out


@cache
def senses() -> dict[str, list[str]]:
    """Return the meanings of every noun's name in lower case, commonest first, as `index.noun` lists them."""
    out: dict[str, list[str]] = {}
    for line in (FOLDER / "index.noun").read_text().splitlines():
        if not line.startswith(" "):
            parts = line.split()
            out[parts[0].replace("_", " ")] = [f"n{offset}" for offset in parts[-int(parts[2]) :]]
    return out
