"""Gaussian-weighted mean of the learned tensors over the epochs: Gaussian prompt aggregation (GPA).

Khattak et al., "Self-regulating Prompts", ICCV 2023, arXiv 2307.06948, section 3.2.2. Official:
muzairkhattak/PromptSRC trainers/promptsrc.py, which averages the frozen CLIP's fp16 tensors as well.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from .base import Method
from .options import MethodConfig, at_least

SHARE = 0.6  # of the epochs: 30 of 50 in the authors' few-shot setting, both mean and deviation


@dataclass(frozen=True)
class EpochAverageConfig(MethodConfig):
    average: bool = True
    """Replace the prompts of the last epoch by their mean over the epochs (GPA)."""
    average_mean: Annotated[float, at_least(0, "0 (0.6 of the epochs) or an epoch from 1")] = 0.0
    """Epoch, from 1, with the largest weight in the mean; 0: 0.6 of the epochs."""
    average_std: Annotated[float, at_least(0, "0 (0.6 of the epochs) or a number above")] = 0.0
    """Standard deviation of the weights, in epochs; 0: 0.6 of the epochs."""

    def epoch_weight(self, epoch: int, epochs: int) -> float:
        """Unnormalised weight of epoch e = 1 .. E: exp(-(e - mean)^2 / 2 std^2)."""
        mean, std = self.average_mean or SHARE * epochs, self.average_std or SHARE * epochs
        return math.exp(-0.5 * ((epoch - mean) / std) ** 2)


class EpochAverage(Method):
    """A method whose learned tensors v become sum_e g_e v_e after the last epoch; the weights g sum to 1.

    The running mean is saved in checkpoints, not in adapters.
    """

    config: EpochAverageConfig

    def start_average(self) -> None:
        """Allocate the means; call it at the end of `build`."""
        for name, tensor in list(self.named_parameters()):
            self.register_buffer(f"average_{name}", torch.zeros_like(tensor), persistent=False)

    @torch.no_grad()
    def after_epoch(self, epoch: int, epochs: int) -> None:
        """Update the means; after the last epoch, replace the learned tensors by them."""
        weights = [self.config.epoch_weight(e, epochs) for e in range(1, epoch + 1)]
        share = weights[-1] / sum(weights) if any(weights) else 1.0  # if all underflow, keep the latest
        for name, mean in self.running_state().items():
            learned = self.get_parameter(name)
            mean.lerp_(learned, share)
            if epoch == epochs:
                learned.copy_(mean)

    def running_state(self) -> dict[str, Tensor]:
        """The means by name of the learned tensor; empty without `average`."""
        names = [name for name, _ in self.named_parameters()] if self.config.average else []
        return {name: self.get_buffer(f"average_{name}") for name in names}
