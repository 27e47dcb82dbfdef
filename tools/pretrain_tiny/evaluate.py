"""Score a checkpoint on validation data: zero-shot, linear probe, pixels, feature spread; optionally prompts."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from augment import plain
from model import CLIPConfig, TinyCLIP
from sklearn.linear_model import LogisticRegression
from tasks import TASKS, Part, Task
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F


def load(path: Path) -> TinyCLIP:
    """Read a training checkpoint."""
    saved = torch.load(path, weights_only=True)
    model = TinyCLIP(CLIPConfig(**saved["config"]))
    model.load_state_dict(saved["model"])
    return model.eval().requires_grad_(False)


def tokenize(tokenizer: Tokenizer, texts: list[str], length: int) -> Tensor:
    """Return ids padded with zeros after EOT."""
    ids = torch.zeros(len(texts), length, dtype=torch.long)
    for row, code in zip(ids, tokenizer.encode_batch(texts), strict=True):
        row[: len(code.ids)] = torch.tensor(code.ids)
    return ids


def image_features(model: TinyCLIP, part: Part) -> Tensor:
    """Encode all pictures of a split."""
    size = model.config.image_resolution
    return torch.cat([model.encode_image(plain(pixels, size)) for pixels in part.pixels.split(256)])


def linear(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    """Return the best validation accuracy of logistic regression over a range of C."""
    best = 0.0
    for c in (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0):
        probe = LogisticRegression(C=c, max_iter=1000).fit(train, labels)
        best = max(best, float((probe.predict(test) == truth).mean()))
    return best


def spread(image: Tensor, text: Tensor, labels: Tensor) -> dict[str, float]:
    """Return mean cosines: between images, between texts, of matching and of other pairs."""

    def off(x: Tensor) -> float:
        return float(((x @ x.T).sum() - len(x)) / (len(x) * (len(x) - 1)))

    cross = image @ text.T
    match = cross[torch.arange(len(labels)), labels]
    other = (cross.sum() - match.sum()) / (cross.numel() - len(match))
    return {"image": off(image), "text": off(text), "match": float(match.mean()), "other": float(other)}


def score(model: TinyCLIP, tokenizer: Tokenizer, task: Task, details: bool) -> dict[str, float]:
    """Return the figures of one task, in percent, on its validation split."""
    texts = tokenize(tokenizer, [task.template.format(n) for n in task.class_names], model.config.context_length)
    text = model.encode_text(texts)
    part = task.validation
    image = image_features(model, part)
    guess = (image @ text.T).argmax(1)
    right = guess == part.labels
    result = {"zero-shot": float(right.float().mean())}
    for name, other in task.domains.items():
        hits = (image_features(model, other) @ text.T).argmax(1) == other.labels
        result[f"zero-shot {name}"] = float(hits.float().mean())
    support = task.support
    known, truth = support.labels.numpy(), part.labels.numpy()
    result["probe"] = linear(image_features(model, support).numpy(), known, image.numpy(), truth)
    raw = [F.interpolate(plain(p.pixels, 48), size=(16, 16), mode="area").flatten(1).numpy() for p in (support, part)]
    result["pixels"] = linear(raw[0], known, raw[1], truth)
    if details:
        print({k: round(v, 3) for k, v in spread(image, text, part.labels).items()})
        for c, name in enumerate(task.class_names):
            of = part.labels == c
            wrong = Counter(task.class_names[g] for g in guess[of & ~right].tolist())
            found, pictures, shots = int((right & of).sum()), int(of.sum()), int((support.labels == c).sum())
            print(f"  {name:28s} {found:2d} of {pictures:2d} right, {shots:2d} shots", dict(wrong.most_common(3)))
    return {k: round(100 * v, 1) for k, v in result.items()}


def main() -> None:
    """Print one line a task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--details", action="store_true", help="print every class and the feature spread")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load(options.checkpoint)
    tokenizer = Tokenizer.from_file(str(options.folder / "tokenizer.json"))
    for name, build in TASKS.items():
        task = build(options.folder)
        print(
            name,
            len(task.class_names),
            "classes",
            len(task.support.labels),
            len(task.validation.labels),
            score(model, tokenizer, task, options.details),
            flush=True,
        )


if __name__ == "__main__":
    main()
