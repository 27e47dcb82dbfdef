"""Time to the same validation accuracy on the demo: `python -m benchmarks.accuracy [--shots 4] [--seeds 1 2 3]`.

    reference   DAPT by the straightforward algorithm (benchmarks/reference.py), trained by the paper's recipe: SGD, 50,
                100 or 200 epochs by shots, crops from 0.08 of an image and flips, at RATE, which of those tried in
                studies/recipe.py ends best on these very validation images
    daptune     `FewShotClassifier("dapt")` as it is

Both have the embedded backbone, the same images, first prompts and loader, and a process of their own. The level is the
reference's validation accuracy after its last step. Prints steps and wall seconds until each side is there (at one of
50 looks a run, which do not count in the seconds) and the ratios, and writes JSON to benchmarks/results.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks import host
from benchmarks.host import gigabytes
from benchmarks.reference import ReferenceCLIP, dapt_losses
from daptune import METHODS, FewShotClassifier, TrainConfig, load_backbone, read_source
from daptune.clip.backbone import Backbone
from daptune.data import ImageLoader, ImageTable, sample_fewshot
from daptune.data.demo import demo_styles, extract_demo
from daptune.presets import resolve
from daptune.train.schedule import learning_rate
from studies.curve import Curve, first_at, of_method, stays_at

RATE = 0.002
HEADS = ("seed", "level", "reference: there at step", "s", "daptune: there at step", "s", "stays from", "ends")
HEADS += ("steps, times fewer", "seconds, times fewer")


def straightforward(backbone: Backbone) -> ReferenceCLIP:
    """The reference with a backbone's weights, sizes, activation and ids of special tokens."""
    words = backbone.tokenizer
    special = (words.sot, 0, words.encode(".")[0], words.eot)  # the placeholder's embedding is always replaced
    return ReferenceCLIP(backbone.clip.state_dict(), asdict(backbone.clip.config) | {"special": special})


def reference(train: ImageTable, val: ImageTable, shots: int, seed: int) -> Curve:
    """The straightforward algorithm by the paper's recipe."""
    backbone = load_backbone("tiny", precision="fp32")
    clip = straightforward(backbone)
    classes = [backbone.tokenizer.encode(name.replace("_", " ")) for name in train.class_names]
    first = METHODS["dapt"](backbone, train.class_names, seed=seed)
    context, prompts = first.text_prompt, first.vision_prompt

    config = TrainConfig(**resolve("paper", "dapt", shots=shots).train | {"lr": RATE})
    drawn = sample_fewshot(train, shots, seed).train
    loader = ImageLoader(
        drawn, backbone.preprocess, 32, seed=seed, augment=True, shuffle=True, augmentation=config.augmentation
    )
    steps = config.epochs * loader.batches_per_epoch
    held = list(ImageLoader(val, backbone.preprocess, 256, workers=0).evaluation())

    @torch.no_grad()
    def right() -> int:
        text = F.normalize(clip.text_features(context, classes), dim=-1)
        return sum(int(((clip.visual(x, prompts) @ text.t()).argmax(-1) == y).sum()) for x, y in held)

    curve = Curve(right)
    with torch.no_grad():  # prototypes as in the official code: from one augmented view
        found = [(F.normalize(clip.visual(x), dim=-1), y) for x, y in loader.augmented_view(0)]
    features, labels = (torch.cat(part) for part in zip(*found, strict=True))
    prototypes = torch.stack([features[labels == c].mean(0) for c in range(len(classes))])
    optimizer = torch.optim.SGD([context, prompts], lr=RATE, momentum=config.momentum, weight_decay=config.weight_decay)
    done = 0
    for epoch in range(config.epochs):
        for images, truth in loader.epoch(epoch):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, done, loader.batches_per_epoch)
            optimizer.zero_grad()
            dapt_losses(clip, context, prompts, classes, prototypes, images, truth)["total"].backward()
            optimizer.step()
            done += 1
            curve(done, steps)
    return curve


def daptune(train: ImageTable, val: ImageTable, shots: int, seed: int) -> Curve:
    """The defaults."""
    found: list[Curve] = []

    def before(ready: FewShotClassifier) -> None:
        found.append(of_method(ready.method_, ImageLoader(val, ready.backbone_.preprocess, 256, workers=0)))

    classifier = FewShotClassifier("dapt", shots=shots, seed=seed)
    classifier.fit(train, before=before, progress=lambda state: found[0].progress(state))
    return found[0]


def one_side(name: str, shots: int, seed: int) -> None:
    """Train one side and print its curve as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        root = extract_demo(folder) / demo_styles()[0]
        train = read_source(root / "support").train
        val = read_source(root / "validation", label_names=train.class_names).train
        curve = {"reference": reference, "daptune": daptune}[name](train, val, shots, seed)
    row = {"steps": curve.steps, "seconds": [round(s, 3) for s in curve.seconds], "right": curve.right}
    print(json.dumps({"images": len(val), "threads": torch.get_num_threads(), "peak_gb": gigabytes(), **row}))


def measure(name: str, shots: int, seed: int) -> dict[str, Any]:
    """A side in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.accuracy", "--side", name, "--shots", str(shots), "--seeds", str(seed)]
    done = subprocess.run(command, cwd=host.ROOT, capture_output=True, text=True, env=host.environment(), check=False)
    if done.returncode:
        raise SystemExit(f"{name} ended with code {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def seeds(shots: int, chosen: list[int]) -> Iterator[dict[str, Any]]:
    """Both sides of a seed after the other: `compare` with the seed, the images and the curves."""
    for seed in chosen:
        sides = {name: measure(name, shots, seed) for name in ("reference", "daptune")}
        found = compare(sides["reference"], sides["daptune"])
        yield {"seed": seed, "images": sides["daptune"]["images"], **found, "curves": sides}


def as_row(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The seeds as a row of the speed table: the reference's whole runs, and daptune's until it is first there."""
    reached = [each["daptune"]["seconds"] for each in found if each["daptune"]["seconds"] is not None]
    row: dict[str, Any] = {"name": "accuracy", "precision": "auto", "seeds": found, "never": len(found) - len(reached)}
    seconds = {"reference": [each["reference"]["all_seconds"] for each in found], "daptune": reached}
    for side, name in (("reference", "reference"), ("ours", "daptune")):
        peak = max(each["curves"][name]["peak_gb"] for each in found)
        row[side] = {"seconds": seconds[name], "peak_gb": peak}
    if not row["never"]:
        row["ratio"] = statistics.median(seconds["reference"]) / statistics.median(reached)
    return row


def compare(reference: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Steps and seconds of both until the level, None where it is not reached; `ends` counts images at the end."""
    level = reference["right"][-1]
    there = {name: first_at(side["right"], level) for name, side in (("reference", reference), ("daptune", ours))}
    found: dict[str, Any] = {"level": level / reference["images"], "ends": ours["right"][-1] - level}
    for name, side in (("reference", reference), ("daptune", ours)):
        place = there[name]
        found[name] = {key: None if place is None else side[key][place] for key in ("steps", "seconds")}
        found[name] |= {"all_steps": side["steps"][-1], "all_seconds": side["seconds"][-1]}
    stays = stays_at(ours["right"], level)
    found["daptune"]["stays"] = None if stays is None else ours["steps"][stays]
    return found


def line(found: dict[str, Any]) -> str:
    """A seed of the table. Ratios are those of the whole recipe to daptune's first arrival."""
    sides = [found[name] for name in ("reference", "daptune")]
    cells: list[str] = [str(found["seed"]), f"{100 * found['level']:.1f} %"]
    for side in sides:
        there = ("never", "-") if side["steps"] is None else (str(side["steps"]), f"{side['seconds']:.1f}")
        cells.append(f"{there[0]} of {side['all_steps']}")
        cells.append(f"{there[1]} of {side['all_seconds']:.1f}")
    cells += [str(sides[1]["stays"] or "never"), f"{100 * found['ends'] / found['images']:+.1f}"]
    for key in ("steps", "seconds"):
        cells.append("-" if sides[1][key] is None else f"{sides[0]['all_' + key] / sides[1][key]:.1f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--side", choices=("reference", "daptune"), help="one side alone, its curve as JSON")
    parser.add_argument("--out", type=Path, help="where the JSON goes (default: benchmarks/results)")
    options = parser.parse_args()
    if options.side:
        return one_side(options.side, options.shots, options.seeds[0])
    about = host.about()
    print(f"{about['processor']}, {about['cores']} cores; DAPT on the demo, {options.shots} images a class\n")
    print("| " + " | ".join(HEADS) + " |\n" + "|---" * len(HEADS) + "|")
    rows = []
    for found in seeds(options.shots, options.seeds):
        rows.append(found)
        print(line(found), flush=True)
    stamp = datetime.now(UTC)
    processor = "-".join(about["processor"].lower().split())
    target = options.out or host.ROOT / "benchmarks" / "results" / f"{stamp:%Y-%m-%d}-{processor}-accuracy.json"
    written = {"date": stamp.isoformat(), "machine": about, "shots": options.shots, "rows": rows}
    target.write_text(json.dumps(written) + "\n")
    print(f"\nwritten: {os.path.relpath(target)}")


if __name__ == "__main__":
    main()
