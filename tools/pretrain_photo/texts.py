"""The texts that the text tower learns, and the place of each in the joint space."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from affinity import VISIBLE, Affinity
from shared import SIZES, vocab
from sources import food_names, wordnet_ids
from space import Space
from torch import Tensor
from wordnet import chain, nouns

TEMPLATES = (
    "a photo of a {}.", "a photo of the {}.", "a photo of {}.", "a picture of a {}.", "an image of a {}.", "{}",
    "a {}", "the {}", "{}.", "a photo of one {}.", "a photo of many {}.", "a close-up photo of a {}.",
    "a blurry photo of a {}.", "a bad photo of a {}.", "a good photo of a {}.", "a cropped photo of the {}.",
    "a photo of a small {}.", "a photo of a large {}.", "a low resolution photo of the {}.", "itap of a {}.",
    "a centered satellite photo of {}.", "a photo of a {}, a type of food.", "a photo of a {}, a type of flower.",
    "a photo of a {}, a type of clothing.", "{} texture.", "a bright photo of a {}.",
    "a black and white photo of a {}.",
)  # fmt: skip


def names() -> list[str]:
    """Return the names of all nouns that can be photographed, without duplicates."""
    found = (name for noun in nouns().values() if noun.field in VISIBLE for name in noun.names)
    return list(dict.fromkeys(name for name in found if len(name) < 40))


def kinds() -> list[str]:
    """Return names followed by what they are: "beagle, a kind of hound"."""
    table = nouns()
    rows = [(n.names[0], chain(key)[0]) for key, n in table.items() if n.field in VISIBLE and n.above]
    return [f"{name}, a kind of {table[parent].names[0]}" for name, parent in rows if len(name) < 30]


def glosses() -> list[str]:
    """Return what the dictionary says of them, shortened to what the tower can read."""
    return [" ".join(noun.gloss.split()[:20]) for noun in nouns().values() if noun.field in VISIBLE]


def captions(folder: Path) -> list[str]:
    """Return Flickr8k's captions where they are."""
    path = folder / "flickr-captions" / "Flickr8k_text" / "Flickr8k.token.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split("\t")[1].strip().replace(" .", ".") for line in lines if "\t" in line]


def encode(tokenizer: object, texts: list[str], length: int) -> Tensor:
    """Return token ids padded with zeros behind EOT; texts that are too long keep their EOT."""
    ids = torch.zeros(len(texts), length, dtype=torch.int16)
    for row, code in zip(ids, tokenizer.encode_batch(texts), strict=True):  # type: ignore[attr-defined]
        kept = code.ids if len(code.ids) <= length else [*code.ids[: length - 1], code.ids[-1]]
        row[: len(kept)] = torch.tensor(kept, dtype=torch.int16)
    return ids


def main() -> None:
    """Write `tokenizer.json` and `texts.pt`: the texts, and their vectors in fp16."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--space", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most", type=int, default=40_000, help="texts of each kind that are not names")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    space, ids, food = Space.load(options.space), wordnet_ids(options.photos), food_names(options.photos)
    affinity = Affinity(ids, food)
    classes = [nouns()[key].names[0] for key in ids] + food
    plain = [n for n in dict.fromkeys([*names(), *food])]
    rng = random.Random(0)
    free = [
        text
        for found in (kinds(), glosses(), captions(options.photos))
        for text in rng.sample(found, min(options.most, len(found)))
    ]
    sure = [*TEMPLATES, *classes, *(name for key in ids for name in nouns()[key].names)]
    corpus = [*plain, *plain, *captions(options.photos), *glosses()]
    tokenizer = vocab.trim(vocab.clip_merges(), corpus, sure, SIZES["vocab_size"])
    tokenizer.save(str(options.out / "tokenizer.json"))
    exact = {name: i for i, key in reversed(list(enumerate(ids))) for name in nouns()[key].names}
    exact |= {name: len(ids) + i for i, name in enumerate(food)}
    vectors = []
    for start in range(0, len(plain), 2000):
        part = plain[start : start + 2000]
        rows = affinity.of_names(part)
        for i, name in enumerate(part):
            if name in exact:
                rows[i] = (rows[i] + space.tensors["names"][exact[name]]) / 2
        vectors.append(space.texts(rows).half())
    for start in range(0, len(free), 2000):
        vectors.append(space.texts(affinity.of_texts(free[start : start + 2000])).half())
    table = {"names": plain, "free": free}
    (options.out / "texts.json").write_text(json.dumps(table))
    torch.save(
        {"vectors": torch.cat(vectors), "classes": space.texts(space.tensors["names"])}, options.out / "texts.pt"
    )
    print(f"{tokenizer.get_vocab_size()} tokens, {len(plain)} names, {len(free)} other texts")


if __name__ == "__main__":
    main()
