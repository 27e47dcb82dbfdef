"""Train the image tower to put photographs where they belong: constant rate, linear decay on demand, resumable."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from augment import augment
from shared import SIZES, model, optimise
from space import Space
from torch import Tensor
from torch.nn import functional as F

SCALE = 100.0
WEIGHT = {"food101": 0.5}
"""How often pictures of a source are drawn beside 1 for the others."""
MOST_TOKENS = 16


class Photographs:
    """The packed pictures that a label or the teacher says something about; the teacher may still be at work."""

    def __init__(self, folder: Path, space: Space) -> None:
        self.folder, self.space = folder, space
        self.pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        self.features = np.load(folder / "features.npy", mmap_mode="r")
        table = json.loads((folder / "table.json").read_text())
        self.labels = torch.tensor([row[2] for row in table])
        self.weight = torch.tensor([WEIGHT.get(row[0], 1.0) for row in table], dtype=torch.float64)
        self.names = space.texts(space.tensors["names"])
        self.refresh()

    def refresh(self) -> None:
        """Look how far the teacher is, and allow the pictures that something is known of."""
        self.seen = int((self.folder / "labelled.txt").read_text())
        known = (torch.arange(len(self.labels)) < self.seen) | (self.labels >= 0)
        self.cumulative = (self.weight * known).cumsum(0)

    def draw(self, batch: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return augmented pictures, the unit vectors they should have, and probabilities over the classes."""
        place = torch.rand(batch, dtype=torch.float64) * self.cumulative[-1]
        index = torch.searchsorted(self.cumulative, place).clamp(max=len(self.labels) - 1).sort().values
        labels, taught = self.labels[index], index < self.seen
        classes = len(self.names)
        soft = torch.full((batch, classes), 0.1 / classes)
        wanted = torch.zeros(batch, self.names.shape[1])
        plain = (~taught).nonzero()[:, 0]
        soft[plain] += 0.9 * F.one_hot(labels[plain], classes)
        wanted[plain] = self.space.lift(self.space.tensors["classes"][labels[plain]])
        if bool(taught.any()):
            features = torch.from_numpy(self.features[index[taught].numpy()].astype(np.float32))
            soft[taught] = self.space.soft(features, labels[taught])
            wanted[taught] = self.space.targets(features, labels[taught])
        return augment(torch.from_numpy(self.pixels[index.numpy()]), size), wanted, soft


def loss_of(found: Tensor, wanted: Tensor, soft: Tensor, names: Tensor) -> tuple[Tensor, Tensor]:
    """Return the divergence of the class scores from the soft labels, and the distance from the wanted vectors."""
    score = F.kl_div((SCALE * found @ names.T).log_softmax(1), soft, reduction="batchmean")
    return score, (1 - (found * wanted).sum(1)).mean() / (1 - float(names[0, 0]) ** 2)


def foreign_tokens(batch: int, width: int, patch: int) -> Tensor:
    """Draw 1 to 16 tokens an image from VPT's first values, a quarter to five times as long."""
    bound = (6 / (3 * patch**2 + width)) ** 0.5
    length = 4 ** torch.empty(batch, 1, 1).uniform_(-1, 1.2)
    return torch.empty(batch, int(torch.randint(1, MOST_TOKENS + 1, ())), width).uniform_(-bound, bound) * length


def save(tower: torch.nn.Module, optimizers: list[torch.optim.Optimizer], step: int, seen: int, out: Path) -> None:
    """Replace `image.pt` in one move, so that a kill leaves a whole file."""
    state = {"visual": tower.state_dict(), "step": step, "samples": seen, "config": SIZES}
    state["optimizers"] = [o.state_dict() for o in optimizers]
    torch.save(state, out / "image.new")
    (out / "image.new").replace(out / "image.pt")


def remaining(steps: int, began: float, options: argparse.Namespace) -> float:
    """Return which share of this run is left, by steps or by the clock of the first worker: all must agree."""
    if not options.minutes:
        return 1 - steps / options.steps
    left = torch.tensor(1 - (time.time() - began) / (60 * options.minutes))
    if options.workers > 1:
        dist.broadcast(left, 0)
    return float(left)


def new_tower() -> model.VisionTower:
    """Return the untrained image tower, initialised as TinyCLIP initialises its own."""
    tower = model.VisionTower(model.CLIPConfig(**SIZES))
    for block in tower.transformer.resblocks:
        scale, depth = block.ln_1.weight.numel() ** -0.5, (2 * SIZES["vision_layers"]) ** -0.5
        for matrix, std in (
            (block.attn.in_proj_weight, scale),
            (block.attn.out_proj.weight, scale * depth),
            (block.mlp.c_fc.weight, scale * 2**-0.5),
            (block.mlp.c_proj.weight, scale * depth),
        ):
            torch.nn.init.normal_(matrix, std=std)
    return tower


def train(rank: int, options: argparse.Namespace) -> None:
    """Train as one of the workers; the first writes `image.pt` every two minutes and a line every 25 steps."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if options.workers > 1:
        dist.init_process_group("gloo", f"file://{options.out}/meet", rank=rank, world_size=options.workers)
    torch.manual_seed(options.seed)
    tower = new_tower()
    optimizers = optimise.optimizers_of(tower, options.lr)
    first = samples = 0
    if options.resume:
        saved = torch.load(options.resume, weights_only=True)
        tower.load_state_dict(saved["visual"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        first, samples = saved["step"], saved["samples"]
    torch.manual_seed(options.seed + 1 + first * options.workers + rank)
    photographs = Photographs(options.packed, Space.load(options.space))
    began = saved_at = time.time()
    means = [0.0, 0.0]
    step = first
    while (left := remaining(step - first, began, options)) > 0:
        full = options.decay_now and left <= options.full_patches
        fade = max(left, 0.01) if options.decay_now else 1.0
        for group in (g for o in optimizers for g in o.param_groups):
            group["lr"] = options.lr * min(1.0, (step + 1) / options.warmup, fade)
        images, wanted, soft = photographs.draw(options.batch, SIZES["image_resolution"])
        foreign = None
        if options.decay_now and step % 3 == 0:
            foreign = foreign_tokens(len(images), SIZES["vision_width"], SIZES["vision_patch_size"])
        with torch.autocast("cpu", torch.bfloat16):
            found = F.normalize(tower(images, 0.0 if full else options.drop, foreign).float(), dim=-1)
        score, distance = loss_of(found, wanted, soft, photographs.names)
        (score + options.distance * distance).backward()
        if options.workers > 1:
            optimise.average(tower, options.workers)
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        tower.zero_grad()
        done = step = step + 1
        samples += options.batch * options.workers
        if done % 100 == 0:
            photographs.refresh()
        if rank:
            continue
        means = [means[0] + score.item() / 25, means[1] + distance.item() / 25]
        if done % 25 == 0:
            speed = (done - first) * options.batch * options.workers / (time.time() - began)
            text = f"step {done} samples {samples} score {means[0]:.3f} distance {means[1]:.3f}"
            print(f"{time.strftime('%H:%M:%S')} {text} {speed:.0f}/s labelled {photographs.seen}", flush=True)
            means = [0.0, 0.0]
        if time.time() - saved_at > 120:
            saved_at = time.time()
            save(tower, optimizers, done, samples, options.out)
    if rank == 0:
        save(tower, optimizers, step, samples, options.out)


def main() -> None:
    """Read the options and start the workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packed", type=Path, required=True)
    parser.add_argument("--space", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--steps", type=int, default=1_000_000, help="length of this run")
    parser.add_argument("--minutes", type=float, default=0.0, help="length of this run by the clock instead")
    parser.add_argument("--decay-now", action="store_true", help="let the rate fall to zero over this run")
    parser.add_argument("--full-patches", type=float, default=0.5, help="share of the decay without patch dropout")
    parser.add_argument("--drop", type=float, default=0.5, help="share of patches left out")
    parser.add_argument("--distance", type=float, default=4.0, help="weight of the distance beside the class scores")
    parser.add_argument("--batch", type=int, default=192, help="pictures a worker")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "meet").unlink(missing_ok=True)
    if options.workers == 1:
        train(0, options)
    else:
        torch.multiprocessing.spawn(train, (options,), options.workers)


if __name__ == "__main__":
    main()
