"""What the tower sees of a packed photograph: a crop at its resolution, mirrored, recoloured, sometimes coarse."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1) * 255
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1) * 255
CROPS = (72, 72, 64, 64, 56, 48)
"""Sides of the crops out of 72 pixels; one is drawn for each batch."""
COARSE = 0.15
"""Share of the batches that were small pictures once, as CIFAR's are: reduced to between 24 and 40 pixels."""


def normalised(pixels: Tensor) -> Tensor:
    """Return float pixels 0..255 as CLIP takes them."""
    return (pixels - MEAN) / STD


def crop(pixels: Tensor, side: int) -> Tensor:
    """Cut a random square out of each picture (B, s, s, 3) and mirror half of them: (B, 3, side, side) float."""
    batch, full = pixels.shape[:2]
    place = torch.randint(full - side + 1, (2, batch, 1))
    steps = torch.arange(side)
    down, across = place[0] + steps, place[1] + steps
    mirrored = torch.rand(batch) < 0.5
    across[mirrored] = across[mirrored].flip(1)
    rows = torch.arange(batch)[:, None, None]
    return pixels[rows, down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2).float()


def augment(pixels: Tensor, size: int) -> Tensor:
    """Return what the tower sees of a batch of uint8 pictures (B, 72, 72, 3): (B, 3, size, size) normalised."""
    x = crop(pixels, CROPS[int(torch.randint(len(CROPS), ()))])
    if torch.rand(()) < COARSE:
        x = F.interpolate(x, size=int(torch.randint(24, 41, ())), mode="area")
    if x.shape[-1] != size:
        x = F.interpolate(x, size=size, mode="bilinear", antialias=x.shape[-1] > size, align_corners=False)
    contrast = torch.empty(len(x), 1, 1, 1).uniform_(0.75, 1.25)
    light = torch.empty(len(x), 3, 1, 1).uniform_(-8, 8) + torch.empty(len(x), 1, 1, 1).uniform_(-20, 20)
    return normalised(((x - 120) * contrast + 120 + light).clamp_(0, 255)).contiguous()
