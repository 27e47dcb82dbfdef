"""The mean of what is learned over the epochs, weighted by a Gaussian: Gaussian prompt aggregation (GPA).

Khattak et al., "Self-regulating Prompts", ICCV 2023, arXiv 2307.06948, section 3.2.2. Official:
muzairkhattak/PromptSRC trainers/promptsrc.py, which averages every tensor, those of the frozen CLIP in fp16 too.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from .base import Method
from .options import MethodConfig, at_least

SHARE = 0.6  # of the epochs: the authors' 30 in 50, mean and deviation of their general few-shot setting


@dataclass(frozen=True)
class EpochAverageConfig(MethodConfig):
    """Options of the mean over epochs."""

    average: bool = True
    """Whether the last epoch ends with the mean of the prompts over the epochs (GPA) in place of its own."""
    average_mean: Annotated[float, at_least(0, "0 (0.6 of the epochs) or an epoch from 1")] = 0.0
    """Epoch, from 1, that weighs most in that mean; 0: 0.6 of the epochs."""
    average_std: Annotated[float, at_least(0, "0 (0.6 of the epochs) or a number above")] = 0.0
    """Standard deviation of the weights, in epochs; 0: 0.6 of the epochs."""

    def epoch_weight(self, epoch: int, epochs: int) -> float:
        """exp(-(e - mean)^2 / 2 std^2) for epoch e = 1 .. E: its weight, but for a factor common to all."""
        mean, std = self.average_mean or SHARE * epochs, self.average_std or SHARE * epochs
        return math.exp(-0.5 * ((epoch - mean) / std) ** 2)


class EpochAverage(Method):
    """A method whose learned tensors v become sum_e g_e v_e after the last epoch, g being weights that sum to 1.

    The mean so far is a tensor of the run, not of what was learned: checkpoints hold it, adapters do not.
    """

    config: EpochAverageConfig

    def start_average(self) -> None:
        """To be called at the end of `build`: room for the means."""
        for name, tensor in list(self.named_parameters()):
            self.register_buffer(f"average_{name}", torch.zeros_like(tensor), persistent=False)

    @torch.no_grad()
    def after_epoch(self, epoch: int, epochs: int) -> None:
        """Take the epoch's tensors into the means; after the last epoch the means take their place."""
        weights = [self.config.epoch_weight(e, epochs) for e in range(1, epoch + 1)]
        share = weights[-1] / sum(weights) if any(weights) else 1.0  # all may underflow: then the latest is the mean
        for name, mean in self.running_state().items():
            learned = self.get_parameter(name)
            mean.lerp_(learned, share)
            if epoch == epochs:
                learned.copy_(mean)

    def running_state(self) -> dict[str, Tensor]:
        """The means so far by the names of the learned tensors; empty without `average`."""
        names = [name for name, _ in self.named_parameters()] if self.config.average else []
        return {name: self.get_buffer(f"average_{name}") for name in names}
