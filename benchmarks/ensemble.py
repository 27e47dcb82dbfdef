"""What `--ensemble auto` costs: `python -m benchmarks.ensemble [--repeats 5] [--backbone photo]`.

Made-up photographs (JPEG, 640 x 480, benchmarks/pictures.py) of 10 classes x 16 images. DAPT at its defaults is fitted
with and without the ensemble in turn, and both answer the same 1,000 images in turn. Prints processor seconds (medians)
and the ratios of the pairs, and what a fit with it takes beside what the same fit takes without the making of its
ensemble, which other work on the machine changes least; writes JSON to benchmarks/results. Needs no network.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.host import ROOT, processor_name
from benchmarks.pictures import make_pictures
from daptune import classifier
from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import load_backbone

CLASSES, SHOTS, ASKED = 10, 16, 1000
PARTS = ("none", "auto")


def seconds(work: Callable[[], object]) -> float:
    """Processor time of a call, in seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def timed_ensembles() -> list[float]:
    """Of each ensemble that is made from now on, its processor time in seconds."""
    made: list[float] = []
    make = classifier.join_ensemble
    classifier.join_ensemble = lambda *words: made.append(seconds(lambda: make(*words)))
    return made


def main() -> None:
    """Fit and ask in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="photo")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    backbone = load_backbone(options.backbone)
    taken: dict[str, list[float]] = {f"{what} {part}": [] for what in ("fit", "predict") for part in PARTS}
    made = timed_ensembles()
    with tempfile.TemporaryDirectory() as folder:
        paths = make_pictures(Path(folder), ASKED)
        support = paths[: CLASSES * SHOTS]
        labels = [f"class {n % CLASSES}" for n in range(len(support))]
        fitted = {part: FewShotClassifier(backbone=backbone, ensemble=part) for part in PARTS}
        for part in PARTS:  # the first run of each is not measured
            fitted[part].fit(support, labels).predict(support)
        for _ in range(options.repeats):
            for part in PARTS:
                taken[f"fit {part}"].append(seconds(lambda part=part: fitted[part].fit(support, labels)))
                taken[f"predict {part}"].append(seconds(lambda part=part: fitted[part].predict(paths)))
    fits = taken["fit auto"]
    alone = [fit - own for fit, own in zip(fits, made[-len(fits) :], strict=True)]
    result = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": processor_name(),
        "threads": options.threads,
        "backbone": options.backbone,
        "precision": backbone.precision,
        "processor_seconds": {name: [round(value, 2) for value in values] for name, values in taken.items()},
        "ratios": {
            what: [round(a / b, 4) for a, b in zip(taken[f"{what} auto"], taken[f"{what} none"], strict=True)]
            for what in ("fit", "predict")
        }
        | {"of the same fit": [round(a / b, 4) for a, b in zip(fits, alone, strict=True)]},
    }
    taken |= {"of the same fit none": alone, "of the same fit auto": fits}
    for what, ratios in result["ratios"].items():
        none, auto = (statistics.median(taken[f"{what} {part}"]) for part in PARTS)
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{what:15} none {none:7.2f} s, auto {auto:7.2f} s, ratio {statistics.median(ratios):.3f} ({spread})")
    out = options.out or ROOT / "benchmarks" / "results" / f"{result['date']}-ensemble.json"
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
