"""What pixels alone tell: logistic regression on 16 x 16 pixels, beside which the embedded backbone is judged.

    python -m studies.pixels --tasks TASKS

C is the best of six on the very validation images that are scored, which favours the pixels.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression

from daptune import read_source
from daptune.data import ImageTable, sample_fewshot
from studies.runs import mean_and_deviation

TASKS, SEEDS, SHOTS, SIDE = ("demo", "contrast", "digits", "letters"), (1, 2, 3), 16, 16
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)


def pixels(table: ImageTable) -> NDArray[np.float64]:
    """(n, 3 SIDE^2) in 0 to 1."""
    images = [Image.open(str(path)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX) for path in table.images]
    return np.stack([np.asarray(image, np.float64).ravel() / 255 for image in images])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True, help="folder with a folder a task")
    folder = parser.parse_args().tasks
    print("| task | logistic regression on pixels |\n|---|---|")
    for task in TASKS:
        splits = read_source(folder / task)
        assert splits.val is not None
        scores, held_out = [], pixels(splits.val)
        for seed in SEEDS:
            drawn = sample_fewshot(splits.train, SHOTS, seed).train
            seen = pixels(drawn)
            fits = [LogisticRegression(C=c, max_iter=2000).fit(seen, drawn.labels) for c in STRENGTHS]
            scores.append(max(float(fit.score(held_out, splits.val.labels)) for fit in fits))
        print(f"| {task} | {mean_and_deviation(scores)} |")


if __name__ == "__main__":
    main()
