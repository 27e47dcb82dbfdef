"""Write tests/clip/goldens/: what open_clip's tokenizer and torchvision's transform answer.

build/oracles/bin/python -m tests.oracles.make_goldens        (after `make oracles`; see README.md here)

The awkward texts themselves stand in tokens.json: add one there as ["text", []] and run this. Texts that spell the
names of the start and end tokens are left out on purpose: there we differ by design (see daptune.clip.tokenizer).
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .conftest import oracle

GOLDENS = Path(__file__).parents[1] / "clip" / "goldens"
SHAPES = [(48, 48), (64, 48), (33, 57), (500, 31), (17, 23), (24, 24), (101, 640), (300, 225)]  # width, height
SIZE, POINTS = 24, 40


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Noise over slow waves: fine detail, smooth parts and both ends of the range."""
    noise = np.random.default_rng(seed).integers(0, 90, (height, width, 3))
    y, x = np.mgrid[0:height, 0:width]
    waves = 110 * (1 + np.sin(x / 7 + seed) * np.cos(y / 11))[..., None]
    return Image.fromarray(np.clip(noise + waves - 20, 0, 255).astype(np.uint8))


def tokens() -> list[tuple[str, list[int]]]:
    """Each awkward text with open_clip's ids, without start and end."""
    tokenizer = oracle("open_clip.tokenizer").SimpleTokenizer()
    return [(text, tokenizer.encode(text)) for text, _ in json.loads((GOLDENS / "tokens.json").read_text())]


def transform(size: int) -> "object":
    """OpenAI's evaluation transform, as open_clip builds it from torchvision."""
    return oracle("open_clip.transform").image_transform(size, is_train=False)


def pixels() -> list[dict[str, object]]:
    """For each picture, the transformed values at every so many-th place."""
    found = []
    for seed, (width, height) in enumerate(SHAPES):
        flat = transform(SIZE)(picture(width, height, seed)).flatten()  # type: ignore[operator]
        places = np.linspace(0, len(flat) - 1, POINTS).astype(int).tolist()
        found.append({"shape": [width, height], "seed": seed, "places": places, "values": flat[places].tolist()})
    return found


if __name__ == "__main__":
    lines = ",\n".join(f"  {json.dumps(pair)}" for pair in tokens())
    (GOLDENS / "tokens.json").write_text(f"[\n{lines}\n]\n")
    lines = ",\n".join(f"  {json.dumps(row)}" for row in pixels())
    (GOLDENS / "pixels.json").write_text(f"[\n{lines}\n]\n")
