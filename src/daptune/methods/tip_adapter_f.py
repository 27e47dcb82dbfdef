"""Tip-Adapter-F: the cache of Tip-Adapter with keys that are learned.

Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification", ECCV 2022, arXiv 2207.09519,
section 3.3. Official: gaopengcuhk/Tip-Adapter main.py (run_tip_adapter_F).

Differences to the official code: it keeps the epoch that is best on the test images and reports the better of that and
the searched result; ours keeps the last step, or with select="best_val" the best epoch on validation images. The rest
as in `daptune.methods.tip_adapter`.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from .base import SupportSet
from .tip_adapter import TipAdapter, TipAdapterConfig


@dataclass(frozen=True)
class TipAdapterFConfig(TipAdapterConfig):
    """Options of Tip-Adapter-F: those of Tip-Adapter."""


class TipAdapterF(TipAdapter):
    """Tip-Adapter's logits with K learned from the cached features on; alpha and beta wait for the end of training."""

    name = "tip_adapter_f"
    title = "Tip-Adapter-F"
    year = 2022
    config_class = TipAdapterFConfig
    sees = "fixed features"
    config: TipAdapterFConfig
    keys: nn.Parameter

    def hold(self, keys: Tensor, labels: Tensor) -> None:
        """Make K (n, D), the first values of what is learned, and its labels (n,) the cache."""
        self.keys = nn.Parameter(keys)
        self.register_buffer("key_labels", labels)

    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        """Cache the support images; alpha and beta stay at the given values while keys are learned."""
        super().before_fit(train, None)

    def after_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        """Search alpha and beta for the learned keys."""
        self.search(val)
