"""Synthetic pictures: digits and letters in many fonts, and coloured geometric shapes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import cos, pi, sin
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from sources import FONTS, HELDOUT_FONTS

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
COLOURS = {
    "red": "#e02020",
    "orange": "#f08c1e",
    "yellow": "#f5d020",
    "green": "#2fa84f",
    "blue": "#2f6fe0",
    "purple": "#8a3fc8",
    "pink": "#f078b4",
    "brown": "#8a5a30",
    "black": "#181818",
    "gray": "#8c8c8c",
}
NUMBERS = DIGITS[1:7]


def glyph_images(folder: Path, size: int) -> Iterator[tuple[str, str, str, bytes]]:
    """Yield (style, font, concept name, RGBA bytes) for digits and letters of every font."""
    for style, fonts in (("glyphs", FONTS), ("glyphs-heldout", HELDOUT_FONTS)):
        for name in fonts:
            for weight in (400, 700):
                path = folder / "fonts" / name / "files" / f"{name}-latin-{weight}-normal.woff"
                if path.exists():
                    font = ImageFont.truetype(str(path), round(size * 0.8))
                    yield from ((style, f"{name}-{weight}", c, b) for c, b in _of_font(font, size))


def _of_font(font: ImageFont.FreeTypeFont, size: int) -> Iterator[tuple[str, bytes]]:
    signs = [(str(i), f"digit {word}") for i, word in enumerate(DIGITS)]
    signs += [(c, f"letter {c.upper()}") for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"]
    for sign, concept in signs:
        left, top, right, bottom = font.getbbox(sign)
        if right <= left or bottom <= top:
            continue
        image = Image.new("RGBA", (size, size))
        fit = min(1.0, size * 0.92 / max(right - left, bottom - top))
        used = font.font_variant(size=max(8, int(font.size * fit)))
        left, top, right, bottom = used.getbbox(sign)
        at = ((size - right + left) / 2 - left, (size - bottom + top) / 2 - top)
        ImageDraw.Draw(image).text(at, sign, font=used, fill=(0, 0, 0, 255))
        yield concept, image.tobytes()


def _polygon(points: int, radius: float, x: float, y: float, inner: float = 1.0, turn: float = -pi / 2) -> str:
    steps = points * (1 if inner == 1.0 else 2)
    corners = []
    for i in range(steps):
        r = radius * (inner if inner != 1.0 and i % 2 else 1.0)
        corners.append(f"{x + r * cos(turn + 2 * pi * i / steps):.2f},{y + r * sin(turn + 2 * pi * i / steps):.2f}")
    return f'<polygon points="{" ".join(corners)}"/>'


def _shape(name: str, r: float, x: float, y: float) -> str:
    if name == "circle":
        return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{r:.2f}"/>'
    if name == "ring":
        return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{r * 0.8:.2f}" fill="none" stroke-width="{r * 0.35:.2f}"/>'
    if name == "square":
        return _polygon(4, r, x, y, turn=-pi / 4)
    if name == "cross":
        a, b = r, r * 0.33
        arm = a - b
        turns = f"h{2 * b}v{arm}h{arm}v{2 * b}h{-arm}v{arm}h{-2 * b}v{-arm}h{-arm}v{-2 * b}h{arm}z"
        return f'<path d="M{x - b} {y - a}{turns}"/>'
    if name == "star":
        return _polygon(5, r, x, y, 0.42)
    return _polygon({"triangle": 3, "diamond": 4, "pentagon": 5, "hexagon": 6, "octagon": 8}[name], r, x, y)


def shape_svgs(rng: random.Random) -> Iterator[tuple[str, str]]:
    """Yield (name, svg): every shape in every colour, several times, and groups of two to six."""
    shapes = ["circle", "ring", "square", "cross", "star", "triangle", "diamond", "pentagon", "hexagon", "octagon"]
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">'
    for shape in shapes:
        for colour, code in COLOURS.items():
            style = f'<g fill="{code}" stroke="{code}" stroke-width="0">'
            for _ in range(4):
                body = _shape(shape, rng.uniform(14, 30), rng.uniform(30, 34), rng.uniform(30, 34))
                yield f"{colour} {shape}", f"{head}{style}{body}</g></svg>"
            for count in range(2, 7):
                places = rng.sample([(x, y) for x in (12, 32, 52) for y in (12, 32, 52)], count)
                body = "".join(_shape(shape, rng.uniform(6.5, 9), x, y) for x, y in places)
                yield f"{NUMBERS[count - 1]} {colour} {shape}s", f"{head}{style}{body}</g></svg>"
