"""Wrong labels on purpose: are they found, are they counted, and how many right ones are flagged.

    python -m studies.labels --tasks TASKS

Features of the frozen backbone, nothing is trained; 16 images a class. A share of the labels becomes another class,
drawn evenly. Prints the tables of docs/labels.md. The order is compared with two others:

    nearest mean   of the nearest class mean without the image, by the difference of the two probabilities
    cleanlab       self-confidence: the label's probability by logistic regression, 5-fold cross-validated
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict

from daptune import load_backbone
from daptune.methods.mislabelled import judge_labels
from studies.unknown import Task

TASKS = ("demo", "contrast", "letters", "digits", "clothing", "eurosat")
SHARES, SEEDS, SHOTS = (0.0, 0.05, 0.1, 0.2), (1, 2, 3, 4, 5), 16
SCALES = np.geomspace(1, 300, 60)
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def swapped(labels: Labels, share: float, classes: int, seed: int) -> tuple[Labels, Labels]:
    """Labels of which a share is another class, and the rows of these."""
    rng = np.random.default_rng(seed)
    given, bad = labels.copy(), rng.permutation(len(labels))[: round(share * len(labels))]
    for row in bad:
        given[row] = rng.choice(np.setdiff1d(np.arange(classes), [labels[row]]))
    return given, bad


def nearest_mean(z: Floats, labels: Labels, classes: int) -> Floats:
    """Suspicion, ascending: probability of the label less the largest one, at the most likely temperature."""
    sums, rows = np.zeros((classes, z.shape[1])), np.arange(len(z))
    np.add.at(sums, labels, z)
    cosines = z @ (sums / np.linalg.norm(sums, axis=1, keepdims=True)).T
    others = sums[labels] - z
    cosines[rows, labels] = (z * others).sum(axis=1) / np.maximum(np.linalg.norm(others, axis=1), 1e-12)
    found = max((softmax(scale * cosines, axis=1) for scale in SCALES), key=lambda p: np.log(p[rows, labels]).mean())
    return found[rows, labels] - found.max(axis=1)


def self_confidence(z: Floats, labels: Labels, seed: int) -> Floats:
    """Probability of the label by logistic regression, 5-fold cross-validated."""
    kind = StratifiedKFold if np.bincount(labels).min() >= 5 else KFold
    folds = kind(5, shuffle=True, random_state=seed)
    p = cross_val_predict(LogisticRegression(C=100, max_iter=300), z, labels, cv=folds, method="predict_proba")
    return p[np.arange(len(labels)), np.searchsorted(np.unique(labels), labels)]


def report(tasks: list[Task], shots: int) -> list[str]:
    """Markdown: a row for each task and share, means over seeds."""
    columns = "wrong labels | estimated | flagged | of these wrong | flags if all were right | precision, ours"
    head = f"| task | images | {columns} | nearest mean | cleanlab |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for task in tasks:
        w0 = task.words(task.names)
        for share in SHARES:
            rows = [_row(task, w0, shots, share, seed) for seed in (SEEDS if share else SEEDS[:1])]
            images, bad, *means = np.mean(rows, axis=0)
            shown = [f"{value:.1f}" for value in means[:4]] + [f"{value:.2f}" if share else "-" for value in means[4:]]
            lines.append(f"| {task.name} | {images:.0f} | {bad:.0f} | " + " | ".join(shown) + " |")
    return lines


def _row(task: Task, w0: Floats, shots: int, share: float, seed: int) -> list[float]:
    z, labels = task.support(shots, 1)
    given, bad = swapped(labels, share, len(w0), seed)
    check, count = judge_labels(z, given, w0), len(bad)
    flags = [float(check.flagged.sum()), float(check.flagged[bad].sum())]
    row = [float(len(labels)), float(count), check.wrong, *flags, check.expected]
    if not count:
        return [*row, 0.0, 0.0, 0.0]
    orders = [check.order, *map(np.argsort, (nearest_mean(z, given, len(w0)), self_confidence(z, given, seed)))]
    return [*row, *(float(np.isin(order[:count], bad).mean()) for order in orders)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True, help="folder with a folder a task")
    parser.add_argument("--only", nargs="+", default=TASKS, help="some of the tasks")
    parser.add_argument("--shots", type=int, default=SHOTS, help="images of a class")
    options = parser.parse_args()
    backbone = load_backbone("tiny", precision="fp32")
    for name in options.only:
        print("\n".join(report([Task(options.tasks / name, backbone)], options.shots)), flush=True)


if __name__ == "__main__":
    main()
