"""The residual networks of OpenAI's CLIPs: RN50, RN101, RN50x4, RN50x16 and RN50x64.

Radford et al. 2021, arXiv 2103.00020, section 2.4. Official: openai/CLIP, clip/model.py (ModifiedResNet).

It begins with three convolutions; averages over 2 x 2 pixels halve a map, convolutions have stride 1; an attention pool
reads the last map, by the mean of its places. Batch norms of a frozen network are affine: the reader of checkpoints
folds them into the convolutions before them (`checkpoints.resnet`), which is exact. There is no sequence of tokens, and
so there are no visual tokens. Shape letters: `daptune.clip.model`; h is the side of a map.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import BackboneError
from . import towers
from .blocks import Block, attend
from .frozen import FrozenLinear
from .towers import VisionTower

if TYPE_CHECKING:
    from .model import CLIPConfig

EXPANSION = 4
"""Channels behind a bottleneck for each one inside."""
REDUCTION = 32
"""Pixels of the image for each place of the last map, and channels of that map for each one of the stem."""


class Bottleneck(nn.Module):
    """relu(conv3(pool(relu(conv2(relu(conv1(x)))))) + downsample(pool(x)), where sizes change, else + x).

    The sum is float32.
    """

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        self.stride, outer = stride, EXPANSION * inner
        self.conv1 = nn.Conv2d(channels, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv3 = nn.Conv2d(inner, outer, 1)
        changes = stride > 1 or channels != outer
        self.downsample = nn.Sequential(nn.Conv2d(channels, outer, 1)) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, h) -> (B, 4 inner, h / stride, h / stride) float32."""
        dtype = self.conv1.weight.dtype
        y = F.relu(self.conv2(F.relu(self.conv1(x.to(dtype)))))
        y = self.conv3(self._halved(y)).float()
        if self.downsample is not None:
            x = self.downsample(self._halved(x).to(dtype)).float()
        return F.relu(y + x)

    def _halved(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class AttentionPool(nn.Module):
    """Multi-head attention of the mean of a map, or of each of its places, to the mean and all places."""

    def __init__(self, config: "CLIPConfig") -> None:
        super().__init__()
        width = config.vision_width
        self.heads = config.vision_heads
        self.positional_embedding = nn.Parameter(torch.empty(1 + config.patches, width))
        self.q_proj, self.k_proj, self.v_proj = (FrozenLinear(width, width) for _ in range(3))
        self.c_proj = FrozenLinear(width, config.embed_dim)

    def tokens(self, x: Tensor) -> Tensor:
        """Mean and places of a map, with positions: (B, W, h, h) -> (B, 1 + G, W) in the type of the matrices."""
        x = x.flatten(2).mT
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.positional_embedding
        return x.to(self.c_proj.weight.dtype)

    def forward(self, x: Tensor, queries: int) -> Tensor:
        """What the first `queries` tokens attend to, before c_proj: (B, 1 + G, W) -> (B, queries, W).

        The attention is computed in float32.
        """
        parts = self.q_proj(x[:, :queries]), self.k_proj(x), self.v_proj(x)
        query, key, value = (part.float().unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return attend(query, key, value).transpose(1, 2).flatten(2).to(x.dtype)


class ResNet(VisionTower):
    """Residual network, read by an attention pool."""

    has = frozenset({towers.PATCH_FEATURES, towers.VISUAL_PROJECTION})
    last = None

    def __init__(self, config: "CLIPConfig") -> None:
        super().__init__()
        width = config.vision_width // REDUCTION
        self.stem_values = width * (config.image_size // 2) ** 2
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1)
        channels = width
        for number, blocks in enumerate(config.vision_stages):
            inner = width * 2**number
            stage = []
            for block in range(blocks):
                stage.append(Bottleneck(channels, inner, 2 if number and not block else 1))
                channels = EXPANSION * inner
            self.add_module(f"layer{1 + number}", nn.ModuleList(stage))
        self.attnpool = AttentionPool(config)

    @property
    def blocks(self) -> list[Bottleneck]:
        return [block for block in self.modules() if isinstance(block, Bottleneck)]

    def tokens(self, images: Tensor) -> Tensor:
        """What the pool reads, the mean of the last map and its places: (B, 3, R, R) -> (B, 1 + G, W)."""
        x = images.to(self.conv1.weight.dtype)
        if not torch.compiler.is_compiling():
            x = x.contiguous(memory_format=torch.channels_last)  # in which convolutions are fastest
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu(conv(x))
        x = F.avg_pool2d(x, 2)
        for block in self.blocks:
            again = self.recompute and x.requires_grad
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        return self.attnpool.tokens(x)

    def forward(
        self,
        images: Tensor,
        prompts: Tensor | None = None,
        *,
        before_ln_pre: bool = False,
        pool_prompts: bool = True,
        projected: bool = True,
        patches: bool = False,
        through: Sequence[Block] | None = None,
    ) -> Tensor:
        """With `patches`, each place queries the pool too, as in PLOT (CHENGY12/PLOT, plot-coop/clip/model.py)."""
        if prompts is not None or through is not None:
            raise self._without_tokens()
        x = self.tokens(images)
        x = self.attnpool(x, x.shape[1] if patches else 1)
        x = (self.attnpool.c_proj(x) if projected else x).float()
        return x if patches else x[:, 0]

    def each_patch(self, images: Tensor, prompts: Tensor | None = None) -> Tensor:
        """The pool's value and output projection of each place alone (Zhou, Loy & Dai, "Extract Free Dense Labels from
        CLIP", ECCV 2022, arXiv 2112.01071, section 3.2): its attention, by the mean's query, is to the whole image."""
        if prompts is not None:
            raise self._without_tokens()
        pool = self.attnpool
        features: Tensor = pool.c_proj(pool.v_proj(self.tokens(images)[:, 1:]))
        return features.float()

    def joining(self, tokens: Tensor) -> Tensor:
        raise self._without_tokens()

    @staticmethod
    def _without_tokens() -> BackboneError:
        return BackboneError(
            "a residual network has no visual tokens; a method that learns some must say so in `needs`."
        )

    def widest(self, prompts: int) -> int:
        return self.stem_values

    def projection(self) -> Tensor:
        return self.attnpool.c_proj.weight.mT

    def project(self, pooled: Tensor, matrix: Tensor) -> Tensor:
        return pooled @ matrix + self.attnpool.c_proj.bias.float()
