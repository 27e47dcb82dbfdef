"""Few-shot tasks for the tiny backbone; the splits of a task share no concept (emoji, font, writer's picture)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from captions import load_concepts
from glyphs import DIGITS
from PIL import Image
from sklearn.datasets import load_digits
from split import SOURCE, demo_split
from torch import Tensor

SHOTS = 16


@dataclass(frozen=True)
class Part:
    """One split: RGBA bytes (N, 64, 64, 4), labels, and the concept of each picture."""

    pixels: Tensor
    labels: Tensor
    concepts: list[str]


@dataclass(frozen=True)
class Task:
    """A classification task; `domains` are further test styles, scored without training on them."""

    class_names: list[str]
    support: Part
    validation: Part
    test: Part
    domains: dict[str, Part] = field(default_factory=dict)
    template: str = "a photo of a {}."


def _pixels(folder: Path) -> np.ndarray:
    return np.load(folder / "images.npy", mmap_mode="r")


def demo(folder: Path) -> Task:
    """Return the demo set: emoji categories in a style that pretraining never saw."""
    pictures, pixels = demo_split(folder), _pixels(folder)
    names = sorted({p.label for p in pictures if p.style == SOURCE})

    def part(style: str, split: str) -> Part:
        chosen = [p for p in pictures if (p.style, p.split) == (style, split)]
        labels = torch.tensor([names.index(p.label) for p in chosen])
        return Part(torch.from_numpy(pixels[[p.row for p in chosen]]), labels, [p.concept for p in chosen])

    styles = dict.fromkeys(p.style for p in pictures if p.style != SOURCE)
    domains = {style: part(style, "test") for style in styles}
    return Task(names, *(part(SOURCE, s) for s in ("support", "validation", "test")), domains=domains)


def contrast(folder: Path) -> Task:
    """Return the demo's classes in its black-and-white style, with the same concepts in the same splits."""
    concepts, rows = load_concepts(folder)
    style, pixels = "fluent-emoji-high-contrast", _pixels(folder)
    row_of = {concepts[index].name: row for row, (of, _, index) in enumerate(rows) if of == style}
    pictures = [p for p in demo_split(folder) if p.style == SOURCE and p.concept in row_of]
    names = sorted({p.label for p in pictures})

    def part(split: str) -> Part:
        chosen = [p for p in pictures if p.split == split]
        labels = torch.tensor([names.index(p.label) for p in chosen])
        return Part(torch.from_numpy(pixels[[row_of[p.concept] for p in chosen]]), labels, [p.concept for p in chosen])

    return Task(names, *(part(split) for split in ("support", "validation", "test")))


def digits(folder: Path) -> Task:
    """Return scikit-learn's 8x8 handwritten digits, enlarged; 16 a class for support, 30 for validation."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = []
    for raster in data.images:
        grey = Image.fromarray((raster * 255 / 16).astype(np.uint8)).resize((56, 56), Image.Resampling.BICUBIC)
        ink = Image.new("RGBA", (64, 64))
        ink.putalpha(0)
        ink.paste(Image.merge("RGBA", (*[Image.new("L", (56, 56))] * 3, grey)), (4, 4))
        images.append(np.asarray(ink))
    pixels = torch.from_numpy(np.stack(images))

    def part(first: int, last: int | None) -> Part:
        rows = [i for c in range(10) for i in order[data.target[order] == c][first:last]]
        return Part(pixels[rows], torch.tensor(data.target[rows]).long(), [str(i) for i in rows])

    names = [f"number {word}" for word in DIGITS]
    return Task(names, part(0, SHOTS), part(SHOTS, SHOTS + 30), part(SHOTS + 30, None), template="a photo of the {}.")


def letters(folder: Path) -> Task:
    """Return capital and small letters in fonts that pretraining never saw; each split has its own fonts."""
    concepts, rows = load_concepts(folder)
    chosen = [i for i, r in enumerate(rows) if r[0] == "glyphs-heldout" and concepts[r[2]].name.startswith("letter ")]
    fonts = ["caveat", "fredoka", "satisfy", "press-start-2p", "schoolbell", "kalam", "courgette"]
    fonts += ["shadows-into-light", "amatic-sc"]
    pixels = _pixels(folder)
    names = [f"letter {chr(65 + i)}" for i in range(26)]

    def part(used: list[str]) -> Part:
        index = [i for i in chosen if rows[i][1].rsplit("-", 1)[0] in used]
        labels = torch.tensor([names.index(concepts[rows[i][2]].name) for i in index])
        return Part(torch.from_numpy(pixels[index]), labels, [rows[i][1] for i in index])

    return Task(names, part(fonts[:5]), part(fonts[5:7]), part(fonts[7:]), template="a photo of the {}.")


TASKS: dict[str, Callable[[Path], Task]] = {
    "demo": demo,
    "contrast": contrast,
    "digits": digits,
    "letters": letters,
}
