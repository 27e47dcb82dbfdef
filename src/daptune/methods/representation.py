"""The towers of MMRL: maps from its tokens to each block, and images and texts that the tokens join.

Guo & Gu, "MMRL", CVPR 2025, arXiv 2503.08497, section 3.2. Official: yunncheng/MMRL clip/model_mmrl.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.backbone import Backbone
from ..clip.pooling import Names, pool_names
from ..clip.suffixes import Suffixes
from ..clip.towers import Halfway
from .cocoop import first_linear
from .templates import fill


class TokenMaps(nn.Module):
    """R -> R A_j^T + a_j for J blocks: (n, r) -> (J, n, W); A (J, W, r), a (J, W).

    All start as copies of one of torch's linear layers, drawn from `generator`.
    """

    def __init__(self, blocks: int, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        drawn = first_linear(inputs, outputs, generator)
        self.weight = nn.Parameter(drawn.weight.detach().expand(blocks, -1, -1).clone())
        self.bias = nn.Parameter(drawn.bias.detach().expand(blocks, -1).clone())

    def forward(self, tokens: Tensor) -> Tensor:
        # of three dimensions: torch multiplies two by three in another order for tensors that learn
        return tokens.expand(len(self.weight), -1, -1) @ self.weight.mT + self.bias.unsqueeze(1)


class JoinedImages(nn.Module):
    """An image tower with tokens from a block on, and its two heads; learned are the maps and P_r (W, D).

    P_r starts from N(0, 1 / sqrt(W)) noise, or from CLIP's projection.
    """

    def __init__(self, backbone: Backbone, block: int, width: int, *, noise: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.backbone, self.block, visual = backbone, block, backbone.clip.visual
        sizes, device = backbone.clip.config, backbone.clip.device
        self.maps = TokenMaps(sizes.vision_layers - block, width, sizes.vision_width, generator).to(device)
        start = visual.projection().detach().float().clone()
        drawn = torch.randn(start.shape, generator=generator) * len(start) ** -0.5
        self.projection = nn.Parameter(drawn.to(device) if noise else start)

    def states(self, images: Tensor, *, frozen: bool) -> Tensor:
        """What nothing learned reaches: hidden states at the block, (B, 3, R, R) -> (B, 1 + G, W); with `frozen`,
        followed by the class token of the frozen tower behind its last norm, (B, 2 + G, W)."""
        visual = self.backbone.clip.visual
        states = visual.below(images, self.block)
        return torch.cat([states, visual.above(states, self.block)], 1) if frozen else states

    def forward(self, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Unit z and z_r (B, D) of `states` and tokens R (n, r)."""
        own = states[:, : 1 + self.backbone.clip.config.patches]
        hidden = self.backbone.clip.visual.above(own, self.block, self.maps(tokens))
        return self._projected(hidden[:, 0]), F.normalize(hidden[:, 1:].mean(1) @ self.projection, dim=-1)

    @torch.no_grad()
    def frozen_features(self, states: Tensor) -> Tensor:
        """Unit features z0 of the frozen tower: (B, D)."""
        if states.shape[1] == 1 + self.backbone.clip.config.patches:
            states = self.backbone.clip.visual.above(states, self.block)
        return self._projected(states[:, -1])

    def _projected(self, hidden: Tensor) -> Tensor:
        projection = self.backbone.clip.visual.projection()
        return F.normalize((hidden.to(projection.dtype) @ projection).float(), dim=-1)


class JoinedTexts(nn.Module):
    """Frozen prompts of C classes, which tokens join at a block; learned are the maps of the tokens.

    The states of the texts at that block are computed once, and not saved.
    """

    words: Tensor
    shared: Tensor | None
    own: Tensor | None
    plain: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        class_names: Names,
        template: str,
        block: int,
        width: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.backbone, self.block, sizes = backbone, block, backbone.clip.config
        names, pool = pool_names(class_names)
        words, self.suffixes = Suffixes.of_texts(backbone.tokenizer, fill(template, names), pool)
        self.maps = TokenMaps(sizes.text_layers - block, width, sizes.text_width, generator).to(backbone.clip.device)
        tensors = {"words": words.to(backbone.clip.device), "shared": None, "own": None, "plain": None}
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    def features(self, tokens: Tensor) -> Tensor:
        """Unit features with tokens R (n, r): (C, D)."""
        found = self.backbone.clip.text.above(self._states(), self.suffixes, common=self.maps(tokens))
        return F.normalize(found, dim=-1)

    def frozen_features(self) -> Tensor:
        """Unit features without tokens, w0: (C, D)."""
        if self.plain is None:
            with torch.inference_mode(False), torch.no_grad():
                self.plain = F.normalize(self.backbone.clip.text.above(self._states(), self.suffixes), dim=-1)
        return self.plain

    def _states(self) -> Halfway:
        if self.shared is None or self.own is None:
            with torch.inference_mode(False), torch.no_grad():
                text = self.backbone.clip.text
                found = text.below(text.embed(self.words), self.suffixes, self.block)
                self.shared, self.own = found.common, found.own
        return Halfway(self.block, self.shared, self.own)
