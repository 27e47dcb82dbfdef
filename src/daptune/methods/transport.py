"""Optimal transport between the features of an image and of several prompts: base of PLOT and PLOT++.

Chen, Yao, Song, Li, Rao & Zhang, "PLOT: Prompt Learning with Optimal Transport for Vision-Language Models", ICLR 2023,
arXiv 2210.01253, section 3; Sinkhorn's iterations: Cuturi, NeurIPS 2013, arXiv 1306.0895. Official: CHENGY12/PLOT,
`CustomCLIP` of plot-coop/trainers/plot.py and plot-pp/trainers/plotpp.py.

Differences to the official code: the iterations stop for each pair of image and class separately instead of for the
whole batch (`official_stop`); it computes in fp16 and returns None if a plan has a NaN; in float32 there is none, since
no entry of the kernel is below exp(-2 / regularization), 2e-9 for 0.1.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Method
from .options import MethodConfig, at_least

ITERATIONS, SMALLEST_CHANGE = 100, 1e-2


@dataclass(frozen=True)
class TransportConfig(MethodConfig):
    # far below 0.05, exp(-2 / epsilon) is 0 in float32 and cannot be divided by
    regularization: Annotated[float, at_least(0.05, "0.05 or more")] = 0.1
    """Weight of the plan's entropy, epsilon; smaller values match features more strictly and need more iterations."""
    official_stop: bool = False
    """Stop the iterations of a whole batch when their mean change is small, as in the official code: predictions then
    depend on the batch. By default each pair of image and class stops separately."""


class TransportMethod(Method):
    """score_bc = sum over prompts n and parts g of T_ng S_ng, S the cosines, T the plan of least cost 1 - S."""

    config: TransportConfig

    @abstractmethod
    def image_sets(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Image features, not normalised: parts (B, G, D) and global features (B, D)."""

    @abstractmethod
    def logit_weights(self) -> Tensor:
        """Class features for each prompt, not normalised: (N, C, D)."""

    def text_features(self) -> Tensor:
        """Normalised mean of the class features over the prompts: (C, D)."""
        return F.normalize(self.logit_weights().mean(0), dim=-1)

    def image_features(self, images: Tensor) -> Tensor:
        return F.normalize(self.image_sets(images)[1], dim=-1)

    def mixed_logits(self, images: Tensor, global_weight: float) -> Tensor:
        """exp(logit_scale) (score + global_weight z w^T) with z `image_features` and w `text_features`: (B, C)."""
        (parts, whole), text = self.image_sets(images), self.class_text_features()
        similarity = similarities(F.normalize(parts, dim=-1), F.normalize(text, dim=-1))
        plan = transport_plan(similarity, self.config.regularization, together=self.config.official_stop)
        score = (plan * similarity).sum((-2, -1))
        if global_weight:
            score = score + global_weight * F.normalize(whole, dim=-1) @ F.normalize(text.mean(0), dim=-1).mT
        return self.scale * score


def similarities(image: Tensor, text: Tensor) -> Tensor:
    """Cosines S of unit features: image (B, G, D), text (N, C, D) -> (B, C, N, G)."""
    rows = text.transpose(0, 1).flatten(0, 1)  # (C N, D)
    return (rows @ image.mT).unflatten(1, (text.shape[1], text.shape[0]))


@torch.no_grad()
def transport_plan(similarity: Tensor, regularization: float, *, together: bool = False) -> Tensor:
    """Plan T = r_g K_ng c_n, K = exp((S - 1) / regularization), with uniform marginals: S (B, C, N, G) -> the same.

    Alternates r = (1 / G) / c K and c = (1 / N) / K r from c = 1, until the mean change of r over g is below 0.01, for
    each pair (b, c) or, if `together`, over all; at most 100 times. The sums over g are exactly 1 / N, those over n
    approximately 1 / G. No gradient: the plan is constant when the prompts are trained.
    """
    kernel = ((similarity - 1) / regularization).exp()
    prompts, parts = kernel.shape[-2:]

    def step(count: Tensor, r: Tensor, c: Tensor, moving: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        next_r = 1 / parts / (c.unsqueeze(-2) @ kernel).squeeze(-2)  # (B, C, G)
        next_c = 1 / prompts / (kernel @ next_r.unsqueeze(-1)).squeeze(-1)  # (B, C, N)
        change = (next_r - r).abs().mean(-1)
        r, c = (torch.where(moving.unsqueeze(-1), new, old) for new, old in ((next_r, r), (next_c, c)))
        return count + 1, r, c, moving & ((change.mean() if together else change) >= SMALLEST_CHANGE)

    def going(count: Tensor, r: Tensor, c: Tensor, moving: Tensor) -> Tensor:
        return (count < ITERATIONS) & moving.any()

    r, c = kernel.new_ones((*kernel.shape[:-2], parts)), kernel.new_ones(kernel.shape[:-1])
    moving = torch.ones_like(r[..., 0], dtype=torch.bool)  # (B, C)
    state = torch.zeros((), dtype=torch.int64, device=kernel.device), r, c, moving
    if torch.compiler.is_compiling():  # an exported graph must hold the loop, not the steps of one batch
        from torch._higher_order_ops import while_loop

        state = while_loop(going, step, state)
    else:
        while going(*state):
            state = step(*state)
    _, r, c, _ = state
    return kernel.mul_(r.unsqueeze(-2)).mul_(c.unsqueeze(-1))
