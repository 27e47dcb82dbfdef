"""CLIP-Adapter: a two-layer network on the frozen image features, mixed with the original features.

Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters", arXiv 2110.04544 (IJCV 2023), section
3.2. Official: gaopengcuhk/CLIP-Adapter clip_adapter.py; as there, only image features are adapted.

Differences to the official code: the width is the backbone's instead of 1024 (ResNet-50's); the frozen text features
are computed once instead of in each step; initial values come from the method's own generator.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .options import Count, Share
from .zero_shot import ZeroShot, ZeroShotConfig


@dataclass(frozen=True)
class CLIPAdapterConfig(ZeroShotConfig):
    """Options of CLIP-Adapter: those of the frozen text classifier, and of the adapter."""

    ratio: Share = 0.2
    """Share of the adapter's output in the image feature; the rest is CLIP's."""
    reduction: Count = 4
    """The hidden layer has D / reduction units."""


class CLIPAdapter(ZeroShot):
    """z = normalise(ratio A(f) + (1 - ratio) f), A(f) = relu(relu(f W_1^T) W_2^T), f CLIP's own feature."""

    name = "clip_adapter"
    title = "CLIP-Adapter"
    year = 2021
    config_class = CLIPAdapterConfig
    sees = "fixed features"
    config: CLIPAdapterConfig
    down: nn.Parameter
    up: nn.Parameter

    def build(self, generator: torch.Generator) -> None:
        """W_1 `down` (H, D) and W_2 `up` (D, H), no biases: uniform(-v, v), v = inputs^-1/2, as in nn.Linear."""
        super().build(generator)
        width = self.clip.config.embed_dim
        hidden = width // self.config.reduction
        self.config.require("reduction", hidden >= 1, f"at most {width}, the width of the backbone's features")

        def first(outputs: int, inputs: int) -> nn.Parameter:
            weight = torch.empty(outputs, inputs).uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
            return nn.Parameter(weight.to(self.clip.device))

        self.down, self.up = first(hidden, width), first(width, hidden)

    def image_features(self, images: Tensor) -> Tensor:
        f = self.encode(images)
        adapted = F.relu(F.linear(F.relu(F.linear(f, self.down)), self.up))
        return F.normalize(self.config.ratio * adapted + (1 - self.config.ratio) * f, dim=-1)
