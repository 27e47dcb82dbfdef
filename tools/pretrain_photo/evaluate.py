"""Measure the gates: zero-shot, nearest class mean and logistic regression at 4 and 16 shots, mean of three seeds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from tasks import TEMPLATES, Task, load_task, pixels
from torch import Tensor
from torch.nn import functional as F

from daptune import load_backbone
from daptune.clip.backbone import Backbone

SEEDS = (1, 2, 3)


@torch.no_grad()
def image_features(backbone: Backbone, pictures: np.ndarray, tokens: Tensor | None = None) -> Tensor:
    """Return unit features, with visual tokens (1, P, W) beside the class token if any."""
    parts = []
    for start in range(0, len(pictures), 256):
        images = backbone.preprocess.normalize(pictures[start : start + 256])
        parts.append(F.normalize(backbone.clip.encode_image(images, tokens).float(), dim=-1))
    return torch.cat(parts)


@torch.no_grad()
def text_features(backbone: Backbone, texts: list[str]) -> Tensor:
    """Return unit features."""
    return F.normalize(backbone.clip.encode_text(backbone.tokenizer(texts)).float(), dim=-1)


def nearest_mean(support: Tensor, labels: Tensor, scored: Tensor, centre: Tensor) -> Tensor:
    """Return the guesses of the nearest class mean, all features centred on the support."""
    classes = int(labels.max()) + 1
    support, scored = (F.normalize(x - centre, dim=-1) for x in (support, scored))
    means = torch.zeros(classes, support.shape[1]).index_add_(0, labels, support)
    return (scored @ F.normalize(means, dim=-1).T).argmax(1)


def regression(support: Tensor, labels: Tensor, scored: Tensor, centre: Tensor) -> Tensor:
    """Return the guesses of logistic regression on centred features of unit length; C is fixed."""
    support, scored = (F.normalize(x - centre, dim=-1) for x in (support, scored))
    model = LogisticRegression(C=10.0, max_iter=500).fit(support.numpy(), labels.numpy())
    return torch.from_numpy(model.predict(scored.numpy()))


def score(backbone: Backbone, task: Task, shots: list[int], regress: bool) -> dict[str, float]:
    """Return accuracies in percent."""
    truth = torch.tensor([label for _, label in task.scored])
    scored_pixels = pixels(task.scored, backbone.preprocess)
    scored = image_features(backbone, scored_pixels)
    text = text_features(backbone, [TEMPLATES[task.name].format(name) for name in task.classes])
    logits = 100 * scored @ text.T
    result = {"zero-shot": 100 * float((logits.argmax(1) == truth).float().mean())}
    result["zero-shot loss"] = float(F.cross_entropy(logits, truth))
    generator = torch.Generator().manual_seed(0)
    width, patch = backbone.clip.config.vision_width, backbone.clip.config.patch_size
    bound = (6 / (3 * patch**2 + width)) ** 0.5
    tokens = torch.empty(1, 16, width).uniform_(-bound, bound, generator=generator)
    foreign = image_features(backbone, scored_pixels[:1000], tokens)
    result["zero-shot, 16 foreign tokens"] = 100 * float(((foreign @ text.T).argmax(1) == truth[:1000]).float().mean())
    draws = {(count, seed): task.shots(count, seed) for count in shots for seed in SEEDS}
    used = sorted({place for draw in draws.values() for place in draw})
    features = image_features(backbone, pixels([task.support[p] for p in used], backbone.preprocess))
    row = {place: i for i, place in enumerate(used)}
    methods = {"nearest mean": nearest_mean} | ({"regression": regression} if regress else {})
    for count in shots:
        for name, method in methods.items():
            hits = []
            for seed in SEEDS:
                draw = draws[count, seed]
                support = features[[row[p] for p in draw]]
                labels = torch.tensor([task.support[p][1] for p in draw])
                hits.append(float((method(support, labels, scored, support.mean(0)) == truth).float().mean()))
            result[f"{name}, {count} shots"] = 100 * sum(hits) / len(hits)
    return {key: round(value, 2 if "loss" in key else 1) for key, value in result.items()}


def main() -> None:
    """Print a line for each set; with --out append it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="tiny", help="a folder that export.py wrote, or a name")
    parser.add_argument("--splits", type=Path, help="folder of CoOp's split files")
    parser.add_argument("--part", choices=("test", "val"), default="test", help="val: what may be chosen on")
    parser.add_argument("--shots", type=int, nargs="*", default=[4, 16])
    parser.add_argument("--no-regression", action="store_true", help="the nearest mean alone: seconds, not minutes")
    parser.add_argument("--out", type=Path)
    for name in TEMPLATES:
        parser.add_argument(f"--{name}", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(options.backbone)
    for name in TEMPLATES:
        folder = getattr(options, name)
        if folder:
            task = load_task(name, folder, options.splits, options.part)
            result = score(backbone, task, options.shots, not options.no_regression)
            print(name, len(task.classes), "classes", len(task.scored), "pictures", result, flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps({"set": name, "part": options.part} | result) + "\n")


if __name__ == "__main__":
    main()
