"""The CLIP that is pretrained: OpenAI's parameter names, plus patch dropout for cheap training.

The computation is the one of `daptune.clip`; this copy only adds what training needs (initialisation, patch
dropout, short captions), so that pretraining does not depend on the frozen towers of the package.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class CLIPConfig:
    """Sizes of both towers; the names follow OpenAI's constructor."""

    image_resolution: int = 48
    vision_patch_size: int = 8
    vision_width: int = 192
    vision_layers: int = 6
    vision_heads: int = 3
    transformer_width: int = 128
    transformer_layers: int = 4
    transformer_heads: int = 2
    embed_dim: int = 128
    context_length: int = 40
    vocab_size: int = 1024

    def as_dict(self) -> dict[str, int]:
        """Return the sizes as a plain mapping for the checkpoint."""
        return asdict(self)


class Block(nn.Module):
    """Pre-LN transformer block with OpenAI's parameter names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """Apply the block to (batch, tokens, width)."""
        batch, tokens, width = x.shape
        qkv = F.linear(self.ln_1(x), self.attn.in_proj_weight, self.attn.in_proj_bias)
        q, k, v = qkv.view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-1, -2)
        if causal:
            scores = scores + scores.new_full((tokens, tokens), -1e4).triu(1)
        y = scores.softmax(-1).to(v.dtype) @ v  # several times faster than fused attention on a CPU at this size
        x = x + self.attn.out_proj(y.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks, named `resblocks` as in OpenAI's checkpoints."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(layers))

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Apply all blocks."""
        for block in self.resblocks:
            x = block(x, causal)
        return x


class VisionTower(nn.Module):
    """Vision transformer: patches and class token in, projected class token out."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        width, patch = config.vision_width, config.vision_patch_size
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        tokens = (config.image_resolution // patch) ** 2 + 1
        self.positional_embedding = nn.Parameter(torch.randn(tokens, width) * width**-0.5)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.vision_layers, config.vision_heads)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, config.embed_dim) * width**-0.5)

    def forward(self, images: Tensor, drop: float = 0.0, tokens: Tensor | None = None) -> Tensor:
        """Encode normalised images, keeping a random share `1 - drop` of the patches of each, beside foreign tokens."""
        patch = self.conv1.kernel_size[0]
        batch, channels, side, _ = images.shape
        grid = side // patch
        x = images.view(batch, channels, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5)
        x = x.reshape(batch, grid * grid, channels * patch * patch)
        position = self.positional_embedding[1:].expand(batch, -1, -1)
        if drop > 0:
            keep = max(1, round(grid * grid * (1 - drop)))
            index = torch.rand(batch, grid * grid).topk(keep, dim=1).indices[..., None]
            x = x.gather(1, index.expand(-1, -1, x.shape[-1]))
            position = self.positional_embedding[1:][index[..., 0]]
        x = F.linear(x, self.conv1.weight.flatten(1)) + position
        first = (self.class_embedding + self.positional_embedding[0]).to(x.dtype).expand(batch, 1, -1)
        x = self.ln_pre(torch.cat([first, x], dim=1))
        if tokens is not None:  # (batch, P, width), placed as VPT places them
            x = torch.cat([x, tokens.to(x.dtype)], dim=1)
        x = self.transformer(x)
        return self.ln_post(x[:, 0]) @ self.proj


class TinyCLIP(nn.Module):
    """Both towers and the logit scale; parameter names are those of OpenAI's checkpoints."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        width = config.transformer_width
        self.visual = VisionTower(config)
        self.transformer = Transformer(width, config.transformer_layers, config.transformer_heads)
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.randn(config.context_length, width) * 0.01)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, config.embed_dim) * width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(100.0).log(), requires_grad=False)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        for tower in (self.visual.transformer, self.transformer):
            depth = (2 * len(tower.resblocks)) ** -0.5
            for block in tower.resblocks:
                scale = block.ln_1.weight.numel() ** -0.5
                nn.init.normal_(block.attn.in_proj_weight, std=scale)
                nn.init.normal_(block.attn.out_proj.weight, std=scale * depth)
                nn.init.normal_(block.mlp.c_fc.weight, std=scale * 2**-0.5)
                nn.init.normal_(block.mlp.c_proj.weight, std=scale * depth)

    def encode_image(self, images: Tensor, drop: float = 0.0) -> Tensor:
        """Return unit image features."""
        return F.normalize(self.visual(images, drop).float(), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return unit text features of (batch, length) ids; EOT is the largest id."""
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.transformer(x, causal=True)
        x = x[torch.arange(len(x)), tokens.argmax(dim=1)]
        return F.normalize((self.ln_final(x) @ self.text_projection).float(), dim=-1)
