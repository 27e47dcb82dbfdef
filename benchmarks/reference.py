"""The yardstick: prompt learning computed in the straightforward way, with none of daptune's code.

It follows the structure of the public implementations (OpenAI's clip/model.py, CoOp's trainers/coop.py, DAPT's
trainers/dapt.py, and those that a loss names): 77 tokens for every class through every block, every token through the
last block, float32, quick-GELU as x * sigmoid(1.702 x), torch's own nn.MultiheadAttention, ordinary autograd with
frozen weights. Tensors are (tokens, batch, width) inside the towers.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.workload import DOT, EOT, SOT, VIT_B16, X


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, mlp: int, mask: Tensor | None, activation: str) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, mlp))
        self.mlp.add_module("gelu", QuickGELU() if activation == "quick_gelu" else nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(mlp, width))
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=self.mask)[0]
        return x + self.mlp(self.ln_2(x))


def transformer(size: dict, kind: str, mask: Tensor | None = None) -> nn.Module:
    width, layers, heads, mlp = (size[f"{kind}_{name}"] for name in ("width", "layers", "heads", "mlp"))
    tower = nn.Module()
    tower.resblocks = nn.Sequential(*(Block(width, heads, mlp, mask, size["activation"]) for _ in range(layers)))
    return tower


class Vision(nn.Module):
    def __init__(self, size: dict) -> None:
        super().__init__()
        width, patch = size["vision_width"], size["patch_size"]
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + (size["image_size"] // patch) ** 2, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = transformer(size, "vision")
        self.proj = nn.Parameter(torch.empty(width, size["embed_dim"]))

    def forward(self, images: Tensor, prompts: Tensor | None = None, *, patches: bool = False) -> Tensor:
        """images (B, 3, R, R) -> (B, D); with `patches` (B, 1 + G, D), those of all tokens.

        prompts (P, W) stand between the class token and the patches, after ln_pre (VPT, DAPT); (J, P, W) behind the
        patches, before ln_pre, new ones in each of J layers (MaPLe).
        """
        x = self.conv1(images).flatten(2).permute(0, 2, 1)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        layers = [] if prompts is None or prompts.dim() == 2 else [p.expand(len(x), -1, -1) for p in prompts]
        x = self.ln_pre(torch.cat([x, *layers[:1]], dim=1))
        if prompts is not None and not layers:
            x = torch.cat([x[:, :1], prompts.expand(len(x), -1, -1), x[:, 1:]], dim=1)
        x = x.permute(1, 0, 2)
        for depth, block in enumerate(self.transformer.resblocks):
            if 0 < depth < len(layers):
                x = torch.cat([x[: -layers[depth].shape[1]], layers[depth].permute(1, 0, 2)])
            x = block(x)
        x = x.permute(1, 0, 2)
        return self.ln_post(x if patches else x[:, 0]) @ self.proj


class ReferenceCLIP(nn.Module):
    def __init__(self, state: dict[str, Tensor], size: dict = VIT_B16) -> None:
        super().__init__()
        width, length = size["text_width"], size["context_length"]
        mask = torch.full((length, length), float("-inf")).triu(1)
        self.special = size.get("special", (SOT, X, DOT, EOT))  # another vocabulary has other ids
        self.visual = Vision(size)
        self.transformer = transformer(size, "text", mask)
        self.token_embedding = nn.Embedding(size["vocab_size"], width)
        self.positional_embedding = nn.Parameter(torch.empty(length, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, size["embed_dim"]))
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.load_state_dict(state)
        self.eval().requires_grad_(False)

    def text_features(self, context: Tensor, names: list[list[int]], words: int = 0) -> Tensor:
        """context (M, W), C names as token ids -> (C, D), not normalised.

        `words` placeholders follow the context, frozen; (J, M, W) puts new tokens in the context's places in layer j.
        """
        (start, placeholder, dot, end), (first, *deep) = self.special, context if context.dim() == 3 else (context,)
        tokens = torch.zeros(len(names), self.positional_embedding.shape[0], dtype=torch.int64)
        for row, name in zip(tokens, names, strict=True):
            ids = [start, *[placeholder] * (len(first) + words), *name, dot, end]
            row[: len(ids)] = torch.tensor(ids)
        x = self._put(self.token_embedding(tokens), first) + self.positional_embedding
        for depth, block in enumerate(self.transformer.resblocks):
            if 0 < depth <= len(deep):
                x = self._put(x, deep[depth - 1])
            x = block(x.permute(1, 0, 2)).permute(1, 0, 2)
        return self.ln_final(x)[torch.arange(len(x)), tokens.argmax(dim=-1)] @ self.text_projection

    @staticmethod
    def _put(x: Tensor, tokens: Tensor) -> Tensor:
        """x (C, L, W) with tokens (M, W) behind its first."""
        return torch.cat([x[:, :1], tokens.expand(len(x), -1, -1), x[:, 1 + len(tokens) :]], dim=1)


def dapt_losses(
    clip: ReferenceCLIP,
    context: Tensor,
    prompts: Tensor,
    names: list[list[int]],
    prototypes: Tensor,
    images: Tensor,
    labels: Tensor,
    *,
    inter_weight: float = 0.1,
    intra_weight: float = 0.1,
    t: float = 2.0,
    text: Tensor | None = None,
) -> dict[str, Tensor]:
    """DAPT's losses as its official code has them: torch.pdist for inter-, a mean square for intra-dispersion.

    `text` (C, D), not normalised: the class features, where they were computed in pieces.
    """
    text = F.normalize(clip.text_features(context, names) if text is None else text, dim=-1)
    image = F.normalize(clip.visual(images, prompts), dim=-1)
    terms = {
        "cross_entropy": F.cross_entropy(clip.logit_scale.exp() * image @ text.t(), labels),
        "inter": torch.pdist(text).pow(2).mul(-t).exp().mean(),
        "intra": F.mse_loss(image, prototypes[labels]),
    }
    terms["total"] = terms["cross_entropy"] + inter_weight * terms["inter"] + intra_weight * terms["intra"]
    return terms


def cocoop_loss(
    clip: ReferenceCLIP, learned: dict[str, Tensor], names: list[list[int]], image: Tensor, label: Tensor
) -> Tensor:
    """CoCoOp's cross-entropy of one image (1, 3, R, R), its context shifted by the meta-net (trainers/cocoop.py)."""
    z = F.normalize(clip.visual(image), dim=-1)
    hidden = F.linear(z, learned["meta_net.linear1.weight"], learned["meta_net.linear1.bias"]).relu()
    shift = F.linear(hidden, learned["meta_net.linear2.weight"], learned["meta_net.linear2.bias"])  # (1, W)
    text = F.normalize(clip.text_features(learned["text_prompt"] + shift, names), dim=-1)
    return F.cross_entropy(clip.logit_scale.exp() * z @ text.t(), label)


def coop_loss(
    clip: ReferenceCLIP, learned: dict[str, Tensor], names: list[list[int]], images: Tensor, labels: Tensor
) -> Tensor:
    """CoOp's cross-entropy, both towers in each step (trainers/coop.py)."""
    text = F.normalize(clip.text_features(learned["text_prompt"], names), dim=-1)
    return F.cross_entropy(clip.logit_scale.exp() * F.normalize(clip.visual(images), dim=-1) @ text.t(), labels)


def vpt_loss(clip: ReferenceCLIP, learned: dict[str, Tensor], text: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """VPT's cross-entropy, the class features (C, D) being those of frozen words, computed once."""
    image = F.normalize(clip.visual(images, learned["vision_prompt"]), dim=-1)
    return F.cross_entropy(clip.logit_scale.exp() * image @ F.normalize(text, dim=-1).t(), labels)


def maple_loss(
    clip: ReferenceCLIP, learned: dict[str, Tensor], names: list[list[int]], images: Tensor, labels: Tensor
) -> Tensor:
    """MaPLe's cross-entropy, visual tokens made of the text's in each layer, two frozen words (trainers/maple.py)."""
    coupled = zip(learned["text_prompt"], learned["coupling_weight"], learned["coupling_bias"], strict=True)
    prompts = torch.stack([F.linear(v, weight, bias) for v, weight, bias in coupled])
    text = F.normalize(clip.text_features(learned["text_prompt"], names, words=2), dim=-1)
    image = F.normalize(clip.visual(images, prompts), dim=-1)
    return F.cross_entropy(clip.logit_scale.exp() * image @ text.t(), labels)


def plot_loss(clip: ReferenceCLIP, text: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """PLOT's cross-entropy of text (N, C, D), not normalised, as on ImageNet (plot-coop/trainers/plot.py)."""
    tokens = F.normalize(clip.visual(images, patches=True), dim=-1)
    z, parts, w = tokens[:, 0], tokens[:, 1:], F.normalize(text, dim=-1)
    similarity = torch.einsum("bgd,ncd->bcgn", parts, w).flatten(0, 1)  # (B C, G, N)
    with torch.no_grad():
        kernel = ((similarity - 1) / 0.1).exp()
        r, c = torch.ones_like(kernel[:, :, 0]), torch.ones_like(kernel[:, 0])
        for _ in range(100):
            previous, r = r, 1 / kernel.shape[1] / (kernel @ c.unsqueeze(-1)).squeeze(-1)
            c = 1 / kernel.shape[2] / (kernel.mT @ r.unsqueeze(-1)).squeeze(-1)
            if (r - previous).abs().mean() < 1e-2:
                break
        plan = r.unsqueeze(-1) * c.unsqueeze(-2) * kernel
    score = (plan * similarity).sum((1, 2)).view(len(images), -1) + z @ F.normalize(text.mean(0), dim=-1).t()
    return F.cross_entropy(clip.logit_scale.exp() * score, labels)
