"""Captions of every concept: its name, keywords and category words in many phrasings, as token tables."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from classes import GROUPS, demo_class, demo_group
from concepts import Concept
from glyphs import DIGITS
from tokenizers import Tokenizer

SHORT, LONG = 16, 40
FILLER = 48  # the first of COMMON: words that say nothing about the thing shown
TEMPLATES = (
    "{}",
    "{}",
    "{}",
    "a {}",
    "{} icon",
    "an icon of a {}",
    "an icon of {}",
    "a picture of a {}",
    "a picture of {}",
    "a drawing of a {}",
    "a photo of a {}",
    "an emoji of a {}",
    "an image of a {}",
    "a small picture of {}",
)
COMMON = Path(__file__).with_name("words.txt").read_text().split()


def load_concepts(folder: Path) -> tuple[list[Concept], list[tuple[str, str, int]]]:
    """Return the concepts and rows written by `render.py`."""
    table = json.loads((folder / "images.json").read_text())
    rows = [dict(c, keywords=tuple(c["keywords"])) for c in table["concepts"]]
    concepts = [Concept(**dict(c, demo=demo_class(c["subgroup"], c["name"]))) for c in rows]
    return concepts, [tuple(row) for row in table["rows"]]


def phrases(concept: Concept) -> list[str]:
    """Return the category phrases of a concept: loose words more often than the demo's class name."""
    if not concept.group:
        return []
    found = [concept.subgroup.replace("-", " "), concept.group.replace("-", " ")]
    group = demo_group(concept.subgroup, concept.name)
    if group >= 0:
        row = GROUPS[group]
        found += [*row.words, *row.words, row.name]
    return found


def names(concept: Concept) -> list[str]:
    """Return the names of a concept; signs get the ways in which people call them."""
    head, _, tail = concept.name.partition(" ")
    if head == "digit" and tail in DIGITS:
        digit = str(DIGITS.index(tail))
        phrasings = (f"digit {tail}", f"digit {digit}", f"number {digit}", f"number {tail}", tail, digit)
        return [*phrasings, f"the digit {tail}"]
    if head == "letter" and len(tail) == 1:
        return [f"letter {tail}", f"the letter {tail}", f"capital letter {tail}", f"character {tail}", tail]
    return [concept.name]


def corpus(folder: Path) -> Iterator[str]:
    """Yield every text that captions are made from, once a use."""
    for concept in load_concepts(folder)[0]:
        yield concept.name
        if concept.group:  # emoji words weigh more: they are what most captions are made of
            for _ in range(5):
                yield " ".join((concept.name, *concept.keywords))


def sure_words() -> list[str]:
    """Return words that are kept whatever their count."""
    return [*TEMPLATES, *COMMON, *(g.name for g in GROUPS), *(w for g in GROUPS for w in g.words)]


def caption(concept: Concept, rng: random.Random, category: float) -> tuple[str, str]:
    """Return a caption, and its category phrase ("" where it names the concept itself)."""
    options = phrases(concept)
    draw = rng.random()
    if options and draw < category:
        phrase = rng.choice(options)
        return rng.choice(TEMPLATES).format(phrase), phrase
    name = rng.choice(names(concept))
    words = rng.sample(concept.keywords, min(len(concept.keywords), rng.randint(1, 4)))
    if words and draw > 0.85:
        text = " ".join(rng.sample(words, len(words)))
    elif words and draw > 0.55:
        text = rng.choice(TEMPLATES).format(name) + rng.choice([", ", " ", ": "]) + ", ".join(words)
    else:
        text = rng.choice(TEMPLATES).format(name)
    return text, ""


def lengthen(text: str, concept: Concept, rng: random.Random) -> str:
    """Put filler words or keywords before a caption, or all keywords after it: late positions are trained too."""
    draw = rng.random()
    words = rng.sample(concept.keywords, len(concept.keywords))
    if words and draw < 0.3:
        return text + ", " + ", ".join(words)
    filler = rng.choices(COMMON[:FILLER], k=rng.randint(4, 28))
    return " ".join((words if words and draw < 0.65 else []) + filler[: 14 if words else 28]) + " " + text


def main() -> None:
    """Write `captions.npz`: token tables, where each concept's captions start, and category membership."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--category", type=float, default=0.25, help="share of captions that name the category")
    parser.add_argument("--out", type=Path, help="folder of captions.npz, if another")
    options = parser.parse_args()
    rng = random.Random(0)
    tokenizer = Tokenizer.from_file(str(options.folder / "tokenizer.json"))
    concepts, _ = load_concepts(options.folder)
    phrase_id: dict[str, int] = {}
    member = [{phrase_id.setdefault(p, len(phrase_id)) for p in phrases(c)} for c in concepts]
    tables: dict[str, np.ndarray] = {}
    for name, length, share in (("short", SHORT, 1.0), ("long", LONG, 0.5)):
        texts: list[str] = []
        phrase: list[int] = []
        start = [0]
        for concept in concepts:
            signs = concept.name.startswith(("digit ", "letter "))
            for _ in range(int((48 if concept.group or signs else 8) * share)):
                text, category = caption(concept, rng, options.category)
                if name == "long":
                    text = lengthen(text, concept, rng)
                texts.append(text + ("." if rng.random() < 0.4 else ""))
                phrase.append(phrase_id[category] if category else -1)
            start.append(len(texts))
        ids = np.zeros((len(texts), length), np.int16)
        for row, code in zip(ids, tokenizer.encode_batch(texts), strict=True):
            row[: min(length, len(code.ids))] = code.ids[:length]
            row[length - 1] = code.ids[-1] if len(code.ids) > length else row[length - 1]
        tables |= {f"{name}_ids": ids, f"{name}_phrase": np.array(phrase), f"{name}_start": np.array(start)}
    belongs = np.zeros((len(concepts), len(phrase_id)), bool)
    for i, of in enumerate(member):
        belongs[i, list(of)] = True
    np.savez((options.out or options.folder) / "captions.npz", belongs=belongs, **tables)
    print(f"{len(tables['short_ids'])} short and {len(tables['long_ids'])} long captions, {len(phrase_id)} phrases")


if __name__ == "__main__":
    main()
