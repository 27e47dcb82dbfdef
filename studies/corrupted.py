"""Test images of a data set under six corruptions, as targets of `daptune bench` (kind "domain").

    python -m studies.corrupted caltech101 --data-root data --out data/caltech-101-c

writes OUT/<corruption>/test/<class>/<number>.png. The corruptions are those of Hendrycks & Dietterich, Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations (ICLR 2019), at the third of five strengths, on a
central square of 224 pixels. Blur is another one than theirs: Gaussian, with a deviation of 3 pixels.
"""

import argparse
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from daptune.bench.datasets import read_dataset
from daptune.data.images import decode

SIDE = 224
NOISE, BLUR, CONTRAST, BRIGHTNESS, QUALITY, PIXELS = 0.18, 3.0, 0.2, 0.3, 15, 0.4


def noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add normal noise of standard deviation NOISE, of values from 0 to 1."""
    noisy = np.asarray(image) / 255 + rng.normal(0, NOISE, (SIDE, SIDE, 3))
    return Image.fromarray((noisy.clip(0, 1) * 255).round().astype(np.uint8))


def contrast(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Keep the share CONTRAST of the distance from each channel's mean."""
    values = np.asarray(image) / 255
    mean = values.mean(axis=(0, 1), keepdims=True)
    return Image.fromarray((((values - mean) * CONTRAST + mean).clip(0, 1) * 255).round().astype(np.uint8))


def brightness(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Add BRIGHTNESS to the value of HSV."""
    hue, saturation, value = image.convert("HSV").split()
    raised = value.point([min(255, round(v + 255 * BRIGHTNESS)) for v in range(256)])
    return Image.merge("HSV", (hue, saturation, raised)).convert("RGB")


def jpeg(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Compress with QUALITY."""
    file = BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return Image.open(file).convert("RGB")


def pixelate(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Keep the share PIXELS of the rows and columns."""
    small = image.resize((int(SIDE * PIXELS),) * 2, Image.Resampling.BOX)
    return small.resize((SIDE, SIDE), Image.Resampling.BOX)


CORRUPTIONS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "noise": noise,
    "blur": lambda image, _: image.filter(ImageFilter.GaussianBlur(BLUR)),
    "contrast": contrast,
    "brightness": brightness,
    "jpeg": jpeg,
    "pixelate": pixelate,
}


def main() -> None:
    """Write every test image once for each corruption."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="a name of `daptune data list`, or a folder")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    table = read_dataset(options.dataset, options.data_root).test
    if table is None:
        parser.error(f"{options.dataset} has no test images here")
    for number, (source, label) in enumerate(zip(table.images, table.labels, strict=True)):
        image = ImageOps.fit(decode(source), (SIDE, SIDE), Image.Resampling.BICUBIC)
        for name, corrupt in CORRUPTIONS.items():
            folder = options.out / name / "test" / table.class_names[label]
            folder.mkdir(parents=True, exist_ok=True)
            corrupt(image, np.random.default_rng(number)).save(folder / f"{number:05d}.png")
    print(f"{len(table.labels)} images x {len(CORRUPTIONS)} corruptions in {options.out}")


if __name__ == "__main__":
    main()
