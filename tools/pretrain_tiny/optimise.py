"""Gradients averaged over workers, and the two optimizers: Muon for the matrices of the blocks, AdamW for the rest."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn


def average(model: nn.Module, workers: int) -> None:
    """Average the gradients over the workers in one message."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= workers
    for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(part.view_as(grad))


def optimizers_of(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks (it needs fewer steps) and AdamW for all else."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if "resblocks" in n and p.ndim == 2]
    decayed = [p for n, p in named if "resblocks" not in n and p.ndim >= 2]
    plain = [p for _, p in named if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-6, fused=True),
    ]
