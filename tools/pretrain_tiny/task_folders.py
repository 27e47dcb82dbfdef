"""Write the tasks as folders of pictures, task/split/class/*.png, for the studies of the package."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image
from tasks import TASKS, Part


def write(part: Part, names: list[str], folder: Path) -> None:
    """Write a split; transparent pixels become white, as in the demo set."""
    for row, (pixels, label) in enumerate(zip(part.pixels, part.labels.tolist(), strict=True)):
        place = folder / names[label]
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(pixels.numpy(), "RGBA")
        canvas = Image.new("RGB", picture.size, "white")
        canvas.paste(picture, mask=picture.getchannel("A"))
        canvas.save(place / f"{row:04d}.png")


def main() -> None:
    """Write every task, and the demo's domains as folders with test pictures alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for name, build in TASKS.items():
        task = build(options.folder)
        for split, part in (("train", task.support), ("val", task.validation), ("test", task.test)):
            write(part, task.class_names, options.out / name / split)
        for style, part in task.domains.items():
            write(part, task.class_names, options.out / style / "test")


if __name__ == "__main__":
    main()
