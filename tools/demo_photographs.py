"""Write the photographs of the demo: some of Caltech101 and of EuroSAT, by CoOp's official splits, as one zip.

    python tools/demo_photographs.py --root DATA --out src/daptune/data/demo/photographs.zip

`DATA` holds caltech-101/ and eurosat/, as `daptune data` describes them. Training pictures come from the training
split, test pictures from the test split. Of Caltech101, the classes with the most pictures are taken, without people
and without the four classes that some copies hold as drawings of edges in place of photographs.
The pictures of a class are drawn at random with a fixed seed; the same input gives the same bytes.
"""

import argparse
import io
from collections import Counter
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from PIL import Image

from daptune.data.benchmarks import read_benchmark
from daptune.data.table import ImageTable

SIDE = 160
"""Longest side in pixels. EuroSAT's are 64 pixels and stay so."""
QUALITY = 82
LEFT_OUT = {"face", "accordion", "airplane", "anchor", "ant"}
CLASSES = {"caltech101": 20, "eurosat": 10}
TAKEN = {"support": 16, "test": 15}
"""Pictures of a class."""


def picked(table: ImageTable, label: int, count: int) -> list[Path]:
    """Draw some pictures of a class."""
    rows = np.flatnonzero(table.labels == label)
    drawn = np.random.default_rng(label).permutation(rows)[:count]
    return [Path(str(table.images[row])) for row in drawn]


def encoded(path: Path) -> bytes:
    """Return a picture as a small WebP."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "webp", quality=QUALITY, method=6)
    return out.getvalue()


def main() -> None:
    """Write the zip and print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    written: Counter[tuple[str, str]] = Counter()
    with ZipFile(options.out, "w", ZIP_STORED) as archive:
        for name, count in CLASSES.items():
            splits = read_benchmark(name, options.root)
            assert splits.test is not None
            parts = {"support": splits.train, "test": splits.test}
            sizes = sum(table.counts() for table in parts.values())
            names = splits.train.class_names
            order = [label for label in np.argsort(-sizes, kind="stable") if names[label] not in LEFT_OUT]
            for label in sorted(order[:count]):
                for part, table in parts.items():
                    for number, path in enumerate(picked(table, label, TAKEN[part])):
                        place = f"{name}/{part}/{table.class_names[label]}/{number:02}.webp"
                        archive.writestr(ZipInfo(place, (2020, 1, 1, 0, 0, 0)), encoded(path))
                        written[name, part] += 1
    print(written, f"{options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
