"""Precisions of OpenVINO on an exported file: `python -m benchmarks.rounding MODEL.onnx FOLDER [--images 1000]`.

Images a second on decoded images (the median turn of batches of 16), how many answers differ from those in fp32, and
for how many a near tie was computed again more finely; beside them the same without that. Needs `pip install openvino`,
and a file that was exported where it is installed.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.host import keep
from benchmarks.turns import by_turns
from daptune.data.folders import image_files
from daptune.data.stream import decoded_batches
from daptune.export.rounding import said
from daptune.predict.exported import PROBABILITIES
from daptune.predict.onnx import OnnxClassifier
from daptune.predict.openvino import OpenVino, Rounding, gap

BATCH = 16
Pixels = NDArray[np.float32]
Rows = dict[str, dict[str, Any]]


def several(engine: OpenVino, batches: list[Pixels]) -> None:
    """Answer to each batch."""
    for batch in batches:
        engine.run([PROBABILITIES], batch)


def measured(model: Path, images: list[Pixels], turns: int) -> Rows:
    """A row for each precision, with and without near ties computed again."""
    about = OnnxClassifier(model).metadata
    known, levels = Rounding.read(about.rounding), None if about.thresholds is None else np.array(about.thresholds)
    if not known.margins:
        raise SystemExit(f"{model} has no margins: export it again where openvino is installed, with --images FOLDER")
    alone = Rounding(known.ranges)
    made = {"fp32": ("fp32", alone)}
    made |= {f"{name}, alone": (name, alone) for name in known.margins}
    made |= {name: (name, known) for name in known.margins}
    engines = {row: OpenVino(str(model), precision=name, rounding=how) for row, (name, how) in made.items()}
    answers = {row: np.concatenate([each.run([PROBABILITIES], b)[0] for b in images]) for row, each in engines.items()}
    seconds = by_turns({row: partial(several, each, images[:8]) for row, each in engines.items()}, turns)
    count = sum(map(len, images[:8]))
    found: Rows = {}
    for row, (name, how) in made.items():
        changed = (said(answers[row], levels) != said(answers["fp32"], levels)).any(axis=1)
        near = gap(answers[f"{name}, alone" if name != "fp32" else name], levels) < how.margins.get(name, 0.0)
        found[row] = {
            "images a second": round(count / float(np.median(seconds[row])), 1),
            "changed": int(changed.sum()),
            "again": int(near.sum()),
            "of": len(changed),
        }
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    files = list(image_files(options.folder))
    places = np.linspace(0, len(files) - 1, min(len(files), options.images)).round().astype(int)
    chosen = [files[place] for place in places]
    preprocess = OnnxClassifier(options.model).preprocess
    batches = [b.images for b in decoded_batches(chosen, preprocess, BATCH) if len(b.indices) == BATCH]
    rows = measured(options.model, batches, options.turns)
    print("| precision | images a second | other answers than in fp32 | computed again |\n|---|---|---|---|")
    for name, row in rows.items():
        shares = [f"{100 * row[key] / row['of']:.2f} % ({row[key]} of {row['of']})" for key in ("changed", "again")]
        print(f"| {name} | {row['images a second']} | {' | '.join(shares)} |")
    keep("rounding", {"model": options.model.name, "folder": options.folder.name, "rows": rows}, options.out)


if __name__ == "__main__":
    main()
