"""Tip-Adapter-F: Tip-Adapter with learned keys.

Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification", ECCV 2022, arXiv 2207.09519,
section 3.3. Official: gaopengcuhk/Tip-Adapter main.py (run_tip_adapter_F).

Differences to the official code: it keeps the epoch that is best on the test images and reports the better of that and
the searched result; here the last step is kept, or with select="best_val" the best epoch on validation images. See
also `daptune.methods.tip_adapter`.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from .base import SupportSet
from .tip_adapter import TipAdapter, TipAdapterConfig


@dataclass(frozen=True)
class TipAdapterFConfig(TipAdapterConfig):
    """Options of Tip-Adapter-F: those of Tip-Adapter."""


class TipAdapterF(TipAdapter):
    """Tip-Adapter with K learned, initialised with the cached features; alpha and beta are searched at the end."""

    name = "tip_adapter_f"
    title = "Tip-Adapter-F"
    year = 2022
    config_class = TipAdapterFConfig
    sees = "fixed features"
    config: TipAdapterFConfig
    keys: nn.Parameter

    def hold(self, keys: Tensor, labels: Tensor) -> None:
        self.keys = nn.Parameter(keys)
        self.register_buffer("key_labels", labels)

    def support_features(self) -> None:
        """None: the keys were learned and are no features of images any more."""

    @property
    def joins_ensemble(self) -> bool:
        return False  # its keys are the support images already

    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        super().before_fit(train, None)  # alpha and beta keep the given values while keys are learned

    def after_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        self.search(val)
