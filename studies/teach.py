"""What the page "Teach" says from few pictures: "not sure", and pictures that contradict their class.

    python -m studies.teach --tasks TASKS

Lessons of 2 to 5 classes drawn at random from a task, on features of the frozen backbone: the ensemble has no learned
prompts here. Prints the tables of docs/serving.md.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from daptune import load_backbone
from daptune.bench.measure import evenly
from daptune.methods.ensemble import Seen, fit_ensemble
from daptune.serve.contradictions import contradicting
from studies.unknown import REJECT, TEMPLATES, Floats, Task

ICONS, PHOTOGRAPHS = ("demo", "digits", "letters", "contrast"), ("clothing", "eurosat")
CLASSES, PICTURES, SEEDS = (2, 3, 5), (1, 2, 4, 8), 20
TRIED = 6  # pictures of each class that are tried
SURE = 0.7  # of the page
MOST = 1000  # training images of a task to draw from


class Pool(NamedTuple):
    """All pictures of a task: features, labels, text features, CLIP's scale."""

    z: Floats
    labels: NDArray[np.int64]
    w0: Floats
    scale: float


class Lesson(NamedTuple):
    """Taught pictures and their classes, others of the same classes, and pictures of other classes."""

    z: Floats
    labels: NDArray[np.int64]
    known: Floats
    truth: NDArray[np.int64]
    unknown: Floats
    w0: Floats


def pool_of(task: Task) -> Pool:
    train = evenly(task.train, MOST)
    z = np.concatenate([task.features(train.images), task.z])
    scale = float(task.backbone.clip.logit_scale.exp())
    return Pool(z, np.concatenate([train.labels, task.test.labels]), task.words(task.names), scale)


def draw(pool: Pool, classes: int, pictures: int, seed: int) -> Lesson:
    rng = np.random.default_rng((seed, classes, pictures))
    chosen = rng.permutation(len(pool.w0))[:classes]
    rows = [rng.permutation(np.flatnonzero(pool.labels == c))[: pictures + TRIED] for c in chosen]
    taught, tried = [own[:pictures] for own in rows], [own[pictures:] for own in rows]
    labels, truth = (np.repeat(np.arange(classes), [len(own) for own in part]) for part in (taught, tried))
    others = rng.permutation(np.flatnonzero(~np.isin(pool.labels, chosen)))[: TRIED * classes]
    z, known = (pool.z[np.concatenate(part)] for part in (taught, tried))
    return Lesson(z, labels, known, truth, pool.z[others], pool.w0[chosen])


def unsure(lesson: Lesson) -> dict[str, float]:
    """Shares of known and unknown pictures that are not sure, and accuracy below and above `SURE`."""
    classes = len(lesson.w0)
    nothing = np.zeros((len(lesson.z), classes))
    ensemble = fit_ensemble(Seen(lesson.z, nothing, lesson.labels), lesson.w0, templates=TEMPLATES)
    found: dict[str, float] = {}
    for name, z in (("known", lesson.known), ("unknown", lesson.unknown)):
        features = torch.from_numpy(z).float()
        p = softmax(ensemble(features, torch.zeros(len(z), classes)).double().numpy(), axis=1)
        values, close = ensemble.known(features), p.max(axis=1) < SURE
        strange = np.zeros(len(z), bool) if values is None else values <= REJECT
        found[f"{name}: unlike"] = np.nan if values is None else float(strange.mean())
        found[f"{name}: not sure"] = float((close | strange).mean())
        if name == "known":
            right = p.argmax(axis=1) == lesson.truth
            for part, rows in (("below", close), ("above", ~close)):
                found[f"right {part} {SURE:.0%}"] = float(right[rows].mean()) if rows.any() else np.nan
    return found


def contradicted(lesson: Lesson, scale: float) -> dict[str, float]:
    """Flags of right labels, the share of moved pictures that is flagged, and whether an exchange is noticed."""
    classes, readable = len(lesson.w0), np.ones(len(lesson.w0), bool)

    def flagged(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        rows = contradicting(Seen(lesson.z, scale * lesson.z @ lesson.w0.T, labels), lesson.w0, readable)
        return np.isin(np.arange(len(labels)), [row for each in rows for row in each.rows])

    pictures = len(lesson.labels) // classes
    moved = np.arange(len(lesson.labels)) < max(1, pictures // 4)  # of the first class
    exchanged = np.where(lesson.labels < 2, 1 - lesson.labels, lesson.labels)
    return {
        "lines without reason": float(flagged(lesson.labels).any()),
        "moved": float(flagged(np.where(moved, 1, lesson.labels))[moved].mean()) if pictures > 1 else np.nan,
        "exchanged": float(flagged(exchanged)[lesson.labels < 2].mean() > 0.5),
    }


def table(pools: dict[str, Pool], kind: str) -> list[str]:
    """Means over tasks and seeds, in per cent."""
    lines: list[str] = []
    for group, title in ((ICONS, "icons"), (PHOTOGRAPHS, "photographs")):
        for pictures in PICTURES:
            rows = []
            for pool in (pools[name] for name in group):
                lessons = [draw(pool, classes, pictures, seed) for classes in CLASSES for seed in range(SEEDS)]
                rows += [unsure(one) if kind == "unsure" else contradicted(one, pool.scale) for one in lessons]
            if not lines:
                lines = ["| tasks | pictures | " + " | ".join(rows[0]) + " |", "|---" * (len(rows[0]) + 2) + "|"]
            values = {key: [row[key] for row in rows if row[key] == row[key]] for key in rows[0]}  # NaN: does not count
            cells = [f"{100 * np.mean(own):.0f}" if own else "–" for own in values.values()]
            lines.append(f"| {title} | {pictures} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Encode the images and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True, help="folder with a folder a task")
    root = parser.parse_args().tasks
    backbone = load_backbone("tiny", precision="fp32")
    pools = {name: pool_of(Task(root / name, backbone)) for name in ICONS + PHOTOGRAPHS}
    for kind in ("unsure", "contradicted"):
        print("\n".join(table(pools, kind)), end="\n\n")


if __name__ == "__main__":
    main()
