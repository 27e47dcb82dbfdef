"""Time of `--method auto`: `python -m benchmarks.choice [--classes 10] [--shots 16] [--threads 2]`.

Made-up photographs (JPEG, 640 x 480, benchmarks/pictures.py) of 10 classes x 16 images, the backbone `tiny`. First the
images are decoded and encoded; the clock of a method runs once their features are there. Prints seconds by method, of
the wall and of the processor, and their sum; writes JSON to benchmarks/results. On a shared machine, processor seconds
divided by the threads are the lower limit of what an idle one takes. Needs no network.
"""

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.host import ROOT, processor_name
from benchmarks.pictures import make_pictures
from daptune.choose.choice import CANDIDATES
from daptune.choose.comparison import Row
from daptune.choose.trials import FOLDS, Settings, Trials
from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import load_backbone
from daptune.data.sources import table_from_lists


class Timed(Trials):
    """Trials that also count the processor's seconds."""

    def _try(self, name: str, recipe: Settings) -> Row:
        began = time.process_time()
        row = super()._try(name, recipe)
        self.processor = {**vars(self).get("processor", {}), name: time.process_time() - began}
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    backbone = load_backbone("tiny")
    classifier = FewShotClassifier(backbone=backbone)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_pictures(Path(folder), options.classes * options.shots)
        table = table_from_lists(paths, [f"class {n % options.classes}" for n in range(len(paths))])
        trials = Timed({name: classifier.settings(name) for name in CANDIDATES}, table, backbone)
        trials.minutes = options.minutes
        found = trials.run()
    rows = [
        {
            "method": row.method,
            "seconds": round(row.seconds, 2),
            "processor_seconds": round(trials.processor[row.method], 2),
            "note": row.note,
        }
        for row in found.rows
    ]
    result = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": processor_name(),
        "threads": options.threads,
        "precision": backbone.precision,
        "classes": options.classes,
        "shots": options.shots,
        "folds": FOLDS,
        "measured": found.how,
        "seconds": round(sum(row.seconds for row in found.rows), 2),
        "processor_seconds": round(sum(trials.processor.values()), 2),
        "rows": rows,
    }
    for row in rows:
        print(f"{row['method']:14} {row['seconds']:8.2f} s {row['processor_seconds']:8.2f} s processor  {row['note']}")
    print(f"{'all':14} {result['seconds']:8.2f} s {result['processor_seconds']:8.2f} s processor; {found.how}")
    out = options.out or ROOT / "benchmarks" / "results" / f"{result['date']}-choice.json"
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
