"""Train a new text tower against the finished image tower, whose features are computed once."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from evaluate import load
from model import TinyCLIP
from optimise import optimizers_of
from train import Pairs, loss_of


def main() -> None:
    """Write a checkpoint with the old image tower and the new text tower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--captions", type=Path, help="another folder's captions.npz")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--pool", type=int, default=40_000, help="augmented pictures encoded once")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--keep-text", action="store_true", help="start from the checkpoint's text tower")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    old = load(options.checkpoint)
    model = old if options.keep_text else TinyCLIP(old.config)
    model.visual = old.visual
    model.requires_grad_(True)
    model.visual.requires_grad_(False)
    model.logit_scale.requires_grad_(False)
    pairs = Pairs(options.folder, options.captions or options.folder)
    features, rows = [], []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for _ in range(options.pool // 500):
            index, images = pairs.pictures(500, model.config.image_resolution)
            features.append(model.encode_image(images).float())
            rows.append(index)
    image, row = torch.cat(features), torch.cat(rows)
    optimizers = optimizers_of(model, options.lr)
    began = time.time()
    for step in range(options.steps):
        drawn = torch.randint(len(row), (options.batch,))
        ids, same = pairs.captions(row[drawn], step % 8 == 0)
        fade = min(1.0, (step + 1) / 100, 2.5 * (options.steps - step) / options.steps)
        for group in (g for o in optimizers for g in o.param_groups):
            group["lr"] = options.lr * fade
        with torch.autocast("cpu", torch.bfloat16):
            text = model.encode_text(ids)
        loss = loss_of(image[drawn], text, same, 100.0)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} loss {loss.item():.3f} {time.time() - began:.0f} s", flush=True)
    state = {"model": model.state_dict(), "step": 10**6, "config": model.config.as_dict()}
    torch.save(state, options.out)


if __name__ == "__main__":
    main()
