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
        y, mask = self.ln_1(x), self.mask
        if mask is not None and len(mask) != len(x):  # tokens have joined
            mask = torch.full((len(x), len(x)), float("-inf")).triu(1)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
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

    def read_upper(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Class token and n tokens behind the last norm, (B, 1 + n, W): tokens (J, n, W) join behind the class token in
        the last J blocks, new ones in each (MMRL)."""
        x = self.conv1(images).flatten(2).permute(0, 2, 1)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x, count = self.ln_pre(x), tokens.shape[1]
        below = len(self.transformer.resblocks) - len(tokens)
        for depth, block in enumerate(self.transformer.resblocks):
            if depth >= below:
                new = tokens[depth - below].expand(len(x), -1, -1)
                x = torch.cat([x[:, :1], new, x[:, 1 if depth == below else 1 + count :]], dim=1)
            x = block(x.permute(1, 0, 2)).permute(1, 0, 2)
        return self.ln_post(x[:, : 1 + count])


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

    def text_features(
        self,
        context: Tensor,
        names: list[list[int]],
        words: int = 0,
        own: tuple[int, Tensor] | None = None,
        joining: Tensor | None = None,
    ) -> Tensor:
        """context (M, W), C names as token ids -> (C, D), not normalised.

        `words` placeholders follow the context, frozen; (J, M, W) puts new tokens in the context's places in layer j.
        `own`: a block, and tokens (C, M, W) in the context's places before it (TCP). `joining` (J, n, W): tokens behind
        the start in the last J blocks, new ones in each (MMRL).
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
            if own is not None and depth == own[0]:
                x = self._put(x, own[1])
            below = len(self.transformer.resblocks) - (0 if joining is None else len(joining))
            if joining is not None and depth >= below:
                new = joining[depth - below]
                x = (
                    torch.cat([x[:, :1], new.expand(len(x), -1, -1), x[:, 1:]], 1)
                    if depth == below
                    else self._put(x, new)
                )
            x = block(x.permute(1, 0, 2)).permute(1, 0, 2)
        eot = tokens.argmax(dim=-1) + (0 if joining is None else joining.shape[1])
        return self.ln_final(x)[torch.arange(len(x)), eot] @ self.text_projection

    @staticmethod
    def _put(x: Tensor, tokens: Tensor) -> Tensor:
        """x (C, L, W) with tokens (M, W), or (C, M, W), behind its first."""
        return torch.cat([x[:, :1], tokens.expand(len(x), -1, -1), x[:, 1 + tokens.shape[-2] :]], dim=1)


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


def tcp_loss(
    clip: ReferenceCLIP,
    learned: dict[str, Tensor],
    frozen: Tensor,
    names: list[list[int]],
    images: Tensor,
    labels: Tensor,
) -> Tensor:
    """TCP's loss, each class's tokens of its frozen feature (C, D) in the ninth of twelve blocks (trainers/tcp.py)."""
    hidden = F.linear(frozen, learned["class_net.linear1.weight"], learned["class_net.linear1.bias"])
    made = F.linear(QuickGELU()(hidden), learned["class_net.linear2.weight"], learned["class_net.linear2.bias"])
    own = round(8 / 12 * len(clip.transformer.resblocks)), made.view(len(names), len(learned["text_prompt"]), -1)
    text = F.normalize(clip.text_features(learned["text_prompt"], names, own=own), dim=-1)
    logits = clip.logit_scale.exp() * F.normalize(clip.visual(images), dim=-1) @ text.t()
    return F.cross_entropy(logits, labels) + 8 * (1 - F.cosine_similarity(text, frozen, dim=-1).mean())


def mmrl_loss(
    clip: ReferenceCLIP,
    learned: dict[str, Tensor],
    frozen: Tensor,
    names: list[list[int]],
    images: Tensor,
    labels: Tensor,
    *,
    weight: float = 0.5,
) -> Tensor:
    """MMRL's loss, the frozen text features (C, D) computed once and the image's for each batch (trainers/mmrl.py)."""

    def maps(kind: str) -> Tensor:
        pairs = zip(learned[f"{kind}.maps.weight"], learned[f"{kind}.maps.bias"], strict=True)
        return torch.stack([F.linear(learned["representation"], *pair) for pair in pairs])

    empty = torch.zeros(0, clip.positional_embedding.shape[1])
    text = F.normalize(clip.text_features(empty, names, words=4, joining=maps("texts")), dim=-1)
    read, scale = clip.visual.read_upper(images, maps("images")), clip.logit_scale.exp()
    image = F.normalize(read[:, 0] @ clip.visual.proj, dim=-1)
    other = F.normalize(read[:, 1:].mean(1) @ learned["images.projection"], dim=-1)
    with torch.no_grad():
        plain = clip.visual(images)
    crossed = [F.cross_entropy(scale * z @ text.t(), labels) for z in (image, other)]
    near = [F.cosine_similarity(a, b, dim=-1).mean() for a, b in ((image, plain), (text, frozen))]
    return 0.7 * crossed[0] + 0.3 * crossed[1] + weight * (2 - near[0] - near[1])


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


def two_sfs_loss(
    clip: ReferenceCLIP, learned: dict[str, Tensor], names: list[list[int]], images: Tensor, labels: Tensor
) -> Tensor:
    """Cross-entropy of 2SFS's first stage, the layer norms of all blocks learned (fs/twostage.py)."""
    for kind, tower in (("text", clip.transformer), ("vision", clip.visual.transformer)):
        for place, block in enumerate(tower.resblocks):
            for which, norm in enumerate((block.ln_1, block.ln_2)):
                for name in ("weight", "bias"):
                    delattr(norm, name)
                    setattr(norm, name, learned[f"{kind}_norms.{name}"][place, which])
    empty = torch.zeros(0, clip.positional_embedding.shape[1])
    text = F.normalize(clip.text_features(empty, names, words=4), dim=-1)
    return F.cross_entropy(clip.logit_scale.exp() * F.normalize(clip.visual(images), dim=-1) @ text.t(), labels)
