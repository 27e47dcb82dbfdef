"""Decode all photographs once: a shuffled memory map of uint8 squares, and a table of where each came from."""

from __future__ import annotations

import argparse
import json
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from sources import photos

SIDE = 72  # the tower sees crops of it at 64


def square(path: Path, side: int = SIDE) -> np.ndarray:
    """Return the middle square of a picture as (side, side, 3), shorter edge resized as CLIP does."""
    with Image.open(path) as image:
        image.draft("RGB", (2 * side, 2 * side))
        return np.asarray(ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BICUBIC))


def _try(path: Path) -> np.ndarray | None:
    try:
        return square(path)
    except (OSError, SyntaxError, ValueError):
        return None


def main() -> None:
    """Write `pixels.npy` and `table.json`; files that do not decode are left out and counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder with mini, tiny-imagenet-200, food101, ..")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--skip", type=Path, nargs="*", default=[], help="earlier table.json files: no picture twice")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    known = {row[1] for table in options.skip for row in json.loads(table.read_text())}
    rows = [photo for photo in photos(options.photos) if str(photo.path.relative_to(options.photos)) not in known]
    random.Random(0).shuffle(rows)
    target = options.out / "pixels.npy"
    pixels = np.lib.format.open_memmap(target, "w+", np.uint8, (len(rows), SIDE, SIDE, 3))
    table: list[tuple[str, str, int]] = []
    with ProcessPoolExecutor(2) as pool:
        for photo, image in zip(rows, pool.map(_try, [r.path for r in rows], chunksize=256), strict=True):
            if image is not None:
                pixels[len(table)] = image
                table.append((photo.source, str(photo.path.relative_to(options.photos)), photo.label))
    pixels.flush()
    (options.out / "table.json").write_text(json.dumps(table))
    print(f"{len(table)} photographs in {target}, {len(rows) - len(table)} did not decode")


if __name__ == "__main__":
    main()
