"""Pretrain the tiny CLIP on rendered icons: constant rate, then linear decay; resumes from any checkpoint."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from augment import augment
from captions import load_concepts
from model import CLIPConfig, TinyCLIP
from optimise import average, optimizers_of
from sources import ICON_SETS
from torch import Tensor
from torch.nn import functional as F

FLIPPABLE = {"animals-nature", "food-drink"}


class Pairs:
    """All pictures and captions in memory; draws batches of both with the mask of pairs that also match."""

    def __init__(self, folder: Path, captions: Path) -> None:
        concepts, rows = load_concepts(folder)
        self.pixels = torch.from_numpy(np.load(folder / "images.npy", mmap_mode="c"))  # shared by all workers
        weight = {s.name: s.weight for s in ICON_SETS} | {"glyphs": 0.06, "shapes": 0.012}
        roles = {s.name: s.role for s in ICON_SETS} | {"glyphs": "mono", "shapes": "colour"}
        used = [i for i, row in enumerate(rows) if weight.get(row[0], 0.0) > 0]
        count: dict[str, int] = {}
        for i in used:
            count[rows[i][0]] = count.get(rows[i][0], 0) + 1
        self.row = torch.tensor(used)
        self.concept = torch.tensor([rows[i][2] for i in used])
        mono = {"emojione-monotone"}
        self.mono = torch.tensor([roles[rows[i][0]] == "mono" or rows[i][0] in mono for i in used])
        self.flip = torch.tensor([concepts[rows[i][2]].group in FLIPPABLE for i in used])
        self.share = torch.tensor([weight[rows[i][0]] / count[rows[i][0]] for i in used], dtype=torch.float64)
        self.share.div_(self.share.sum())
        self.text = {k: torch.from_numpy(v) for k, v in np.load(captions / "captions.npz").items()}

    def pictures(self, batch: int, size: int) -> tuple[Tensor, Tensor]:
        """Return which pictures are drawn, and their augmented images."""
        index = torch.multinomial(self.share, batch, replacement=True)
        return index, augment(self.pixels[self.row[index]], self.mono[index], self.flip[index], size)

    def captions(self, index: Tensor, long: bool) -> tuple[Tensor, Tensor]:
        """Return a caption of each picture, and where (picture, caption) off the diagonal match all the same."""
        concept, kind = self.concept[index], "long" if long else "short"
        start = self.text[f"{kind}_start"]
        width = start[concept + 1] - start[concept]
        row = start[concept] + (torch.rand(len(index)) * width).long()
        ids, phrase = self.text[f"{kind}_ids"][row].long(), self.text[f"{kind}_phrase"][row]
        same = concept[:, None] == concept[None]
        same |= self.text["belongs"][concept][:, phrase.clamp(min=0)] & (phrase >= 0)
        same.fill_diagonal_(False)
        return ids, same


def loss_of(images: Tensor, texts: Tensor, same: Tensor, scale: float) -> Tensor:
    """Return CLIP's symmetric loss; pairs that match by chance are left out of the denominators."""
    logits = (scale * images @ texts.T).masked_fill(same, -1e4)
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train(rank: int, options: argparse.Namespace) -> None:
    """Train as one of the workers; the first writes `last.pt` every few minutes and a line every 50 steps."""
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)  # at a logit scale of 100 many probabilities are denormal, and slow
    if options.workers > 1:
        dist.init_process_group("gloo", f"file://{options.out}/meet", rank=rank, world_size=options.workers)
    torch.manual_seed(options.seed)
    model = TinyCLIP(CLIPConfig(**options.config))
    optimizers = optimizers_of(model, options.lr)
    first = 0
    if options.resume:
        saved = torch.load(options.resume, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        first = saved["step"]
    torch.manual_seed(options.seed + 1 + first * options.workers + rank)
    pairs = Pairs(options.folder, options.captions or options.folder)
    began = saved_at = time.time()
    mean, right = 0.0, 0.0
    last = first + options.decay_steps if options.decay_now else options.steps
    for step in range(first, last):
        left = last - step
        full = left < options.full_patches * options.decay_steps
        long = step % 8 == 0
        index, images = pairs.pictures(options.batch, model.config.image_resolution)
        ids, same = pairs.captions(index, long)
        fade = max(left / options.decay_steps, 0.01) if options.decay_steps else 1.0
        for group in (g for o in optimizers for g in o.param_groups):
            group["lr"] = options.lr * min(1.0, (step + 1) / options.warmup, fade)
        with torch.autocast("cpu", torch.bfloat16):
            image = model.encode_image(images, 0.0 if full else options.drop)
            text = model.encode_text(ids)
        scale = 14 * (100 / 14) ** min(1.0, step / options.ramp_steps)
        loss = loss_of(image, text, same, scale)
        loss.backward()
        if options.workers > 1:
            average(model, options.workers)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        if rank:
            continue
        with torch.no_grad():
            hit = (image @ text.T).masked_fill(same, -2).argmax(1) == torch.arange(len(image))
        mean, right, done = mean + loss.item() / 50, right + hit.float().mean().item() / 50, step + 1
        if done % 50 == 0:
            speed = (done - first) * options.batch * options.workers / (time.time() - began)
            clock = time.strftime("%H:%M:%S")
            print(f"{clock} step {done} loss {mean:.3f} top1 {right:.3f} {speed:.0f} pairs/s", flush=True)
            mean, right = 0.0, 0.0
        if done == last or time.time() - saved_at > 180:
            saved_at = time.time()
            state = {"model": model.state_dict(), "step": done, "config": model.config.as_dict()}
            state["optimizers"] = [o.state_dict() for o in optimizers]
            torch.save(state, options.out / "new.pt")
            (options.out / "new.pt").replace(options.out / "last.pt")


def main() -> None:
    """Read the options and start the workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--captions", type=Path, help="another folder's captions.npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100_000, help="last step, counted from the first run")
    parser.add_argument("--decay-steps", type=int, default=0, help="length of the linear decay to zero")
    parser.add_argument("--decay-now", action="store_true", help="start the decay at the checkpoint of --resume")
    parser.add_argument("--ramp-steps", type=int, default=1500, help="steps in which the logit scale rises to 100")
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--batch", type=int, default=384, help="pairs a worker")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--drop", type=float, default=0.5, help="share of patches left out")
    parser.add_argument("--full-patches", type=float, default=0.6, help="share of the decay without patch dropout")
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--config", type=json.loads, default={}, help="sizes of the model, as JSON")
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
