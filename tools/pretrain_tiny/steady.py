"""Teach the finished image tower that foreign tokens change nothing: features with random ones follow those without.

Tokens that mean nothing leave a full-size CLIP's features nearly as they are; in a tower of 36 patches sixteen of them
halve the accuracy, and prompt learning then starts from there. The tower is its own teacher: no caption is used.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from evaluate import load
from model import VisionTower
from optimise import optimizers_of
from torch import Tensor
from torch.nn import functional as F
from train import Pairs

MOST = 16  # tokens


def features(tower: VisionTower, images: Tensor, tokens: Tensor) -> Tensor:
    """Encode images with tokens (batch, P, width) beside the class token, as VPT places them; unit features."""
    patches = F.conv2d(images, tower.conv1.weight, stride=tower.conv1.kernel_size).flatten(2).mT
    first = tower.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    x = tower.ln_pre(torch.cat([first, patches], 1) + tower.positional_embedding)
    x = tower.transformer(torch.cat([x, tokens.to(x.dtype)], 1))
    return F.normalize((tower.ln_post(x[:, 0]) @ tower.proj).float(), dim=-1)


def random_tokens(batch: int, width: int, patch: int) -> Tensor:
    """Draw 1 to 16 tokens an image from VPT's first values, a quarter to five times as long."""
    bound = (6 / (3 * patch**2 + width)) ** 0.5
    length = 4 ** torch.empty(batch, 1, 1).uniform_(-1, 1.2)
    return torch.empty(batch, int(torch.randint(1, MOST + 1, ())), width).uniform_(-bound, bound) * length


def main() -> None:
    """Write a checkpoint whose image tower is steadier; everything else stays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=5e-4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    teacher, model = load(options.checkpoint).visual, load(options.checkpoint)
    tower = model.visual.requires_grad_(True)
    pairs = Pairs(options.folder, options.folder)
    optimizers = optimizers_of(model, options.lr)
    plain = options.batch // 4  # images that keep the tower where it is without tokens
    began = time.time()
    for step in range(options.steps):
        _, images = pairs.pictures(options.batch, model.config.image_resolution)
        tokens = random_tokens(options.batch, model.config.vision_width, model.config.vision_patch_size)
        fade = min(1.0, (step + 1) / 30, 2 * (options.steps - step) / options.steps)
        for group in (g for o in optimizers for g in o.param_groups):
            group |= {"lr": options.lr * fade, "weight_decay": 0.0}
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                wanted = features(teacher, images, tokens[:, :0])
            without = features(tower, images[:plain], tokens[:plain, :0])
            found = torch.cat([without, features(tower, images[plain:], tokens[plain:])])
        distance = 1 - (found * wanted).sum(-1)
        distance.mean().backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        if (step + 1) % 50 == 0:
            far = f"{distance[:plain].mean():.4f} without tokens, {distance[plain:].mean():.4f} with"
            print(f"step {step + 1} cosine distance {far} {time.time() - began:.0f} s", flush=True)
    state = {"model": model.state_dict(), "step": 10**6, "config": model.config.as_dict()}
    torch.save(state, options.out)


if __name__ == "__main__":
    main()
