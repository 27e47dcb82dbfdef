"""Which score tells images of no class from images of the classes, and whether sets and rejection keep what they say.

    python -m studies.unknown --tasks TASKS

Features of the frozen backbone, nothing is trained. Each seed hides a quarter of the classes and draws support images
of the others; test images of the hidden classes are unknown. Prints the tables of docs/unknown.md.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score

from daptune import load_backbone
from daptune.bench.measure import evenly
from daptune.clip.backbone import Backbone
from daptune.data.benchmarks.layouts import class_names
from daptune.data.fewshot import sample_fewshot
from daptune.data.sources import read_source
from daptune.data.stream import decoded_batches
from daptune.evaluate import Measured
from daptune.methods.discriminant import Discriminant
from daptune.methods.ensemble import Seen, fit_ensemble
from daptune.methods.templates import template_features

TASKS = ("demo", "clothing", "eurosat", "digits", "letters", "contrast")
SHOTS, SEEDS = (1, 4, 16), (1, 2, 3, 4, 5, 6)
TEMPLATES = ("a photo of a {}.",)
MOST = 1000  # test images of a task
NEAREST = 3
REJECT, ERROR = 0.05, 0.1
Floats = NDArray[np.float64]


class Task:
    """Features of a task's images, each encoded once, and of its class names."""

    def __init__(self, folder: Path, backbone: Backbone) -> None:
        splits = read_source(folder)
        self.name, self.train, self.backbone = folder.name, splits.train, backbone
        self.test = evenly(splits.test or splits.train, MOST)
        self.names = list(self.train.class_names)
        self._features: dict[Any, Floats] = {}
        self.z = self.features(self.test.images)

    def features(self, images: Iterable[Any]) -> Floats:
        """Unit features (n, D)."""
        images = list(images)
        missing = [image for image in dict.fromkeys(images) if image not in self._features]
        for batch in decoded_batches(missing, self.backbone.preprocess, 64):
            with torch.inference_mode():
                found = F.normalize(self.backbone.clip.encode_image(torch.from_numpy(batch.images)).float(), dim=-1)
            for place, row in zip(batch.indices, found.double().numpy(), strict=True):
                self._features[missing[place]] = row
        return np.stack([self._features[image] for image in images])

    def support(self, shots: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
        drawn = sample_fewshot(self.train, shots, seed).train
        return self.features(drawn.images), drawn.labels

    def words(self, names: list[str]) -> Floats:
        return template_features(self.backbone, names, TEMPLATES).double().numpy()


def far_words(task: Task, w0: Floats) -> Floats:
    """Negative labels: the half of ImageNet's class names that are least like the known classes.

    Jiang et al., Negative Label Guided OOD Detection (ICLR 2024), with ImageNet's names as the corpus.
    """
    words = task.words(sorted(set(class_names(Path("none")).values())))  # no folder: the list of the package
    return words[np.argsort((words @ w0.T).max(axis=1))[: len(words) // 2]]


def scores(task: Task, z: Floats, labels: NDArray[np.int64], w0: Floats, far: Floats) -> dict[str, Floats]:
    """Of test images, larger for known ones, by name: support features (n, D), text features of the known classes."""
    scale = float(task.backbone.clip.logit_scale.exp())
    ensemble = fit_ensemble(Seen(z, np.zeros((len(z), len(w0))), labels), w0, templates=TEMPLATES)
    support, (text, own, _) = Discriminant.fit(z, labels, len(w0)), ensemble.mix.factors
    sums = text * task.z @ w0.T + own * support(task.z)
    probability = softmax(sums, axis=1).max(axis=1)
    cosine = support.nearest(task.z)
    size = ((task.z @ support.precision) * task.z).sum(axis=1)
    nearest = np.sort(task.z @ z.T, axis=1)[:, -NEAREST:].mean(axis=1)
    plain = scale * task.z @ w0.T
    return {
        "cosine to the nearest class mean": cosine,
        "Mahalanobis distance": 2 * support(task.z).max(axis=1) - size,
        f"nearest {NEAREST} support images": nearest,
        "largest probability of the ensemble": probability,
        "largest probability of zero-shot CLIP": softmax(plain, axis=1).max(axis=1),
        "energy of the ensemble": logsumexp(sums, axis=1),
        "negative text labels": logsumexp(plain, axis=1) - logsumexp(scale * task.z @ far.T, axis=1),
        "cosine + probability": cosine + probability,
    }


def hidden(task: Task, shots: int, seed: int) -> tuple[dict[str, float], tuple[float, float]]:
    """AUROC by score with a quarter of the classes hidden; shares of known and unknown images that --reject turns away.

    The shares are NaN for one shot, which judges nothing.
    """
    order = np.random.default_rng(seed).permutation(len(task.names))
    kept = np.sort(order[len(order) // 4 :])
    z, labels = task.support(shots, seed)
    among = np.isin(labels, kept)
    z, labels = z[among], np.searchsorted(kept, labels[among])
    w0 = task.words([task.names[place] for place in kept])
    known = np.isin(task.test.labels, kept)
    found = scores(task, z, labels, w0, far_words(task, w0))
    ensemble = fit_ensemble(Seen(z, np.zeros((len(z), len(w0))), labels), w0, templates=TEMPLATES)
    p = ensemble.known(torch.from_numpy(task.z).float())
    shares = (np.nan, np.nan) if p is None else tuple(float((p[part] <= REJECT).mean()) for part in (known, ~known))
    return {name: float(roc_auc_score(known, values)) for name, values in found.items()}, (shares[0], shares[1])


def kept_promises(task: Task, shots: int, seed: int) -> tuple[float, float, float]:
    """With all classes: share of test images turned away, coverage of the sets, mean size of a set."""
    z, labels = task.support(shots, seed)
    w0 = task.words(task.names)
    ensemble = fit_ensemble(Seen(z, np.zeros((len(z), len(w0))), labels), w0, templates=TEMPLATES)
    features = torch.from_numpy(task.z).float()
    p = softmax(ensemble(features, torch.zeros(len(features), len(w0))).double().numpy(), axis=1)
    found = Measured(p, task.test.labels, ensemble.known(features), ensemble.mix.truth)
    return found.turned_away(REJECT), *found.covered(ERROR)


def spread(values: Iterable[float], unit: float = 100, digits: int = 0) -> str:
    """Mean and standard deviation over seeds."""
    found = unit * np.array(list(values))
    return f"{found.mean():.{digits}f} ± {found.std(ddof=1):.{digits}f}"


def report(tasks: list[Task]) -> list[str]:
    """Markdown: AUROC by score, what is turned away, and sets."""
    runs = {(t.name, k): [hidden(t, k, seed) for seed in SEEDS] for t in tasks for k in SHOTS}
    names = list(next(iter(runs.values()))[0][0])
    lines = ["| score | " + " | ".join(t.name for t in tasks) + " | mean |", "|---" * (len(tasks) + 2) + "|"]
    for name in names:
        means = {key: 100 * np.mean([auroc[name] for auroc, _ in own]) for key, own in runs.items()}
        cells = [", ".join(f"{means[t.name, k]:.0f}" for k in SHOTS) for t in tasks]
        every = ", ".join(f"{np.mean([means[t.name, k] for t in tasks]):.1f}" for k in SHOTS)
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {every} |")
    sd = [100 * np.std([auroc[names[0]] for auroc, _ in own], ddof=1) for own in runs.values()]
    lines += [f"\nStandard deviation over seeds of the first row: {min(sd):.0f} to {max(sd):.0f} points."]
    lines += ["\n| task | shots | known, turned away, % | unknown, turned away, % |", "|---|---|---|---|"]
    for t in tasks:
        for k in SHOTS[1:]:
            known, unknown = zip(*(shares for _, shares in runs[t.name, k]), strict=True)
            lines.append(f"| {t.name} | {k} | {spread(known)} | {spread(unknown)} |")
    lines += ["\n| task | shots | turned away, % | sets hold the truth, % | classes in a set | of |", "|---" * 6 + "|"]
    for t in tasks:
        for k in SHOTS[1:]:
            away, covered, size = zip(*(kept_promises(t, k, seed) for seed in SEEDS), strict=True)
            row = (spread(away, digits=1), spread(covered, digits=1), spread(size, 1, 1), len(t.names))
            lines.append(f"| {t.name} | {k} | " + " | ".join(map(str, row)) + " |")
    return lines


def main() -> None:
    """Encode the images and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True, help="folder with a folder a task")
    root = parser.parse_args().tasks
    backbone = load_backbone("tiny", precision="fp32")
    print("\n".join(report([Task(root / name, backbone) for name in TASKS])))


if __name__ == "__main__":
    main()
