"""Prediction of JPEG files from disk: `python -m benchmarks.pictures [--images 256] [--repeats 3]`.

Files of 640 x 480 pixels in a temporary folder, a made-up CLIP of ViT-B/16's shape, one process, sides taking turns:

    daptune        `FewShotClassifier.stream`: decoding in threads while the tower computes
    tower          daptune's vision tower alone on the same batches, decoded before the clock starts: the limit
    one by one     decode one, run the straightforward tower (benchmarks/reference.py) on it, next
    batches        decode 32 one after the other, run the straightforward tower on them, next: no overlap

Prints images a second (median, smallest to largest), daptune's share of the tower's rate in the same round, how many
times faster than the straightforward ways it is, and the largest difference of the probabilities; writes JSON to
benchmarks/results. Needs no network.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import workload
from benchmarks.host import ROOT, gigabytes, processor_name
from benchmarks.reference import ReferenceCLIP

CLASSES = 100
DISTINCT = 256  # pictures that differ: to make more takes longer than to predict them
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's training images


def make_pictures(folder: Path, count: int, width: int = 640, height: int = 480) -> list[Path]:
    """JPEGs with the spectrum of photographs (amplitude falls as 1/f) and a few sharp edges: about 100 kB each.

    DISTINCT of them differ; the others are files of their own with the same bytes.
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    paths = []
    for number in range(count):
        paths.append(folder / f"{number:06}.jpg")
        if number >= DISTINCT:
            shutil.copy(paths[number % DISTINCT], paths[-1])
            continue
        rng = np.random.default_rng(number)
        phases = np.exp(2j * np.pi * rng.random((3, *frequency.shape)))
        texture = np.fft.irfft2(phases / frequency, (height, width))
        texture /= texture.std(axis=(1, 2), keepdims=True)
        pixels = 120 + 40 * (0.85 * texture[:1] + 0.15 * texture).transpose(1, 2, 0)
        for _ in range(8):
            top, left = rng.integers(0, height), rng.integers(0, width)
            pixels[top : top + rng.integers(20, 160), left : left + rng.integers(20, 160)] += rng.normal(0, 40, 3)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=85)
    return paths


def made_up_classifier(batch: int, precision: str = "fp32", size: dict[str, Any] = workload.VIT_B16) -> Any:
    """A fitted `FewShotClassifier` of CoOp: its image tower is CLIP's own."""
    from daptune.classifier import FewShotClassifier
    from daptune.clip.model import CLIP, CLIPConfig
    from daptune.clip.preprocess import Preprocess
    from daptune.methods import METHODS

    names = workload.class_tokens(CLASSES)
    with torch.device("meta"):
        clip = CLIP(CLIPConfig(**size))
    clip.load_state_dict(workload.weights(size=size), assign=True)
    backbone = SimpleNamespace(
        clip=clip.requires_grad_(False).set_precision(precision),
        tokenizer=workload.MadeUpTokenizer(names),
        preprocess=Preprocess(size["image_size"]),
        device=torch.device("cpu"),
    )
    classifier = FewShotClassifier("coop", batch_size=batch)
    classifier.classes_, classifier.backbone_ = np.array([str(c) for c in range(CLASSES)]), backbone
    classifier.method_ = METHODS["coop"](backbone, classifier.classes_.tolist()).eval()
    classifier.record_ = SimpleNamespace(temperature=1.0)
    return classifier


def transformed(image: Path, size: int) -> torch.Tensor:
    """CLIP's transform as its authors wrote it: resize the shorter side, crop the middle, scale, normalise."""
    picture = Image.open(image).convert("RGB")
    width, height = picture.size
    shorter = min(width, height)
    picture = picture.resize((int(size * width / shorter), int(size * height / shorter)), Image.Resampling.BICUBIC)
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    pixels = np.asarray(picture.crop((left, top, left + size, top + size)), np.float32).transpose(2, 0, 1) / 255
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (MEAN, STD))
    return torch.from_numpy((pixels - mean) / std)


@torch.inference_mode()
def straightforward(
    paths: list[Path], clip: ReferenceCLIP, text: torch.Tensor, group: int = 1, size: int = 224
) -> torch.Tensor:
    """Probabilities (n, C): decode `group` images, compute them, next; text (C, D) of unit length."""
    parts = []
    for start in range(0, len(paths), group):
        images = torch.stack([transformed(path, size) for path in paths[start : start + group]])
        z = torch.nn.functional.normalize(clip.visual(images), dim=-1)
        parts.append((clip.logit_scale.exp() * z @ text.T).softmax(-1))
    return torch.cat(parts)


def streamed(paths: list[Path], classifier: Any) -> torch.Tensor:
    """Probabilities (n, C) of daptune."""
    return torch.from_numpy(np.concatenate([answers.probabilities for _, answers in classifier.stream(paths)]))


def sides(
    paths: list[Path], batch: int, precision: str = "fp32", size: dict[str, Any] = workload.VIT_B16
) -> dict[str, Callable[[], Any]]:
    """What is timed; each gives probabilities (n, C), but the tower alone, which gives features."""
    from daptune.data.loader import iter_batches

    classifier = made_up_classifier(batch, precision, size)
    clip, reference = classifier.method_.clip, ReferenceCLIP(workload.weights(size=size), size)
    with torch.inference_mode():
        text = classifier.method_.text_features()
    ready = [found.images for found in iter_batches(paths, classifier.backbone_.preprocess, batch)]

    @torch.inference_mode()
    def tower() -> torch.Tensor:
        return torch.cat([clip.encode_image(images) for images in ready])

    def plain(group: int) -> torch.Tensor:
        return straightforward(paths, reference, text, group, size["image_size"])

    return {
        "daptune": lambda: streamed(paths, classifier),
        "tower": tower,
        "one by one": lambda: plain(1),
        "batches": lambda: plain(32),
    }


def measure(
    named: dict[str, Callable[[], Any]], images: int, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Seconds of each side, in turns, after a first round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in named}
    found: dict[str, Any] = {}
    for turn in range(repeats + 1):
        for name, side in named.items():
            start = clock()
            found[name] = side()
            spent = clock() - start
            if turn:
                seconds[name].append(spent)
            sys.stderr.write(f"round {turn}: {name} {images / spent:.2f} images/s\n")
    shares = [tower / ours for tower, ours in zip(seconds["tower"], seconds["daptune"], strict=True)]
    others = [name for name in ("one by one", "batches") if name in named]
    faster = {name: [a / b for a, b in zip(seconds[name], seconds["daptune"], strict=True)] for name in others}
    return {
        "images": images,
        "rows": {
            name: {"seconds": spent, "images_per_second": images / statistics.median(spent)}
            for name, spent in seconds.items()
        },
        "share_of_tower": shares,
        "times_faster": {name: statistics.median(ratios) for name, ratios in faster.items()},
        "differences": {name: float((found[name] - found["daptune"]).abs().max()) for name in others},
        "peak_gb": gigabytes(),
    }


def table(result: dict[str, Any]) -> str:
    """The rows for people."""
    lines = ["| side | images/s (slowest-fastest) | daptune is faster by | largest difference |", "|---|---|---|---|"]
    for name, row in result["rows"].items():
        rates = sorted(result["images"] / seconds for seconds in row["seconds"])
        faster, differs = result["times_faster"].get(name), result["differences"].get(name)
        cells = (f"{faster:.2f}", f"{differs:.0e}") if faster is not None else ("-", "-")
        rate = f"{row['images_per_second']:.2f} ({rates[0]:.2f}-{rates[-1]:.2f})"
        lines.append(f"| {name} | {rate} | {' | '.join(cells)} |")
    shares = sorted(result["share_of_tower"])
    share = f"{statistics.median(shares):.0%} ({shares[0]:.0%}-{shares[-1]:.0%})"
    return "\n".join([*lines, "", f"daptune reaches {share} of the tower's rate, round by round"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64, help="images at a time of daptune and of the tower")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of daptune and of the tower")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    parser.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="'processor' with --threads 1 counts the seconds of all threads, on a machine that others use too",
    )
    parser.add_argument("--only", help="sides, comma-separated, such as daptune,tower (these two are always there)")
    parser.add_argument("--out", type=Path, help="where the JSON goes (default: benchmarks/results)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    clock = time.process_time if options.clock == "processor" else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        paths = make_pictures(Path(folder), options.images)
        size = sum(path.stat().st_size for path in paths) / len(paths)
        named = sides(paths, options.batch, options.precision)
        if options.only:
            chosen = {"daptune", "tower", *options.only.split(",")}
            named = {name: side for name, side in named.items() if name in chosen}
        result = measure(named, options.images, options.repeats, clock)
    stamp = datetime.now(UTC)
    about = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    about |= {"processor": processor_name(), "load": os.getloadavg()}
    result = {
        "date": stamp.isoformat(),
        "machine": about,
        "clock": options.clock,
        "batch": options.batch,
        "precision": options.precision,
        "bytes_an_image": size,
        **result,
    }
    name = "-".join(about["processor"].lower().split())
    target = options.out or ROOT / "benchmarks" / "results" / f"{stamp:%Y-%m-%d}-{name}-pictures.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result), f"\nwritten: {os.path.relpath(target)}", sep="\n")


if __name__ == "__main__":
    main()
