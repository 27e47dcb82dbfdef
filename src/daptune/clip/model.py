"""The frozen two-tower CLIP with prompts.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision" (arXiv 2103.00020).
Parameter names and semantics are those of OpenAI's checkpoints (openai/CLIP, clip/model.py), so that their state
dicts load unchanged. Every size from B/32 to bigG/14 is a `CLIPConfig`; image towers (`vit`) and other families are in
files of their own (FAMILIES).

Shape letters, used in the whole package:

    B  images in a batch         D  width of the joint embedding    P  visual prompt tokens
    C  classes                   W  width of a tower                M  context (text prompt) tokens
    N  contexts                  R  side of an image in pixels      J  depth of a prompt (1 = shallow)
    T  tokens of a text          G  patches of an image             S  tokens of a class suffix (name . EOT)
    H  attention heads           L  tokens in a sequence

Precision: the residual stream, layer norms and features are float32; `set_precision` sets the type of the frozen
matrices and their products. Weights are frozen, so linear layers save no input for the backward pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import BackboneError
from . import joining, towers
from .blocks import GELU, Attention, Block, LayerNorm, Transformer, causal
from .eva import EVAViT
from .perception import PEViT
from .prefix import shared_prefix_features
from .resnet import ResNet
from .siglip import FullText, MAPViT
from .suffixes import Suffixes
from .towers import Halfway, TextTower, VisionTower
from .vit import ViT

TEXT = "text."
Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Values of the widest activation for which a CPU encodes images in one group: it then stays in the caches.
IMAGE_CHUNK_NUMBERS = 6_000_000


@dataclass(frozen=True)
class CLIPConfig:
    """Sizes of a CLIP; all but the heads and the activation follow from the shapes of a checkpoint."""

    embed_dim: int
    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    vision_mlp: int
    context_length: int
    vocab_size: int
    text_width: int
    text_layers: int
    text_heads: int
    text_mlp: int
    activation: str = "quick_gelu"
    text_activation: str = ""
    """That of the text tower; empty: the same."""
    norm_eps: float = 1e-5
    """Of the image tower, and of a text tower without a mask; causal text towers have 1e-5."""
    family: str = "clip"
    """Which towers, of FAMILIES."""
    vision_stages: tuple[int, ...] = ()
    """Blocks of each stage of a residual network; `vision_layers` is their sum, `vision_width` that of the last map,
    `patch_size` the pixels of one of its places, and there is no `vision_mlp`. Empty for a transformer."""
    eos_id: int | None = None
    """Id at whose first place a causal text is read; None: that of the highest id."""
    class_token: bool = True
    """Whether a `ViT` has a class token: all but that of PE-Core G/14 have one."""

    def __post_init__(self) -> None:
        for activation in (self.activation, self.text_activation or self.activation):
            if activation not in ("quick_gelu", *GELU):
                raise BackboneError(f"activation must be 'quick_gelu', 'gelu' or 'gelu_tanh', found {activation!r}.")
        for tower, width, heads in (
            ("vision", self.vision_width, self.vision_heads),
            ("text", self.text_width, self.text_heads),
        ):
            if width % heads:
                raise BackboneError(f"{tower} width {width} is not a multiple of its {heads} heads.")

    @property
    def patches(self) -> int:
        """G, the patches of one image."""
        return (self.image_size // self.patch_size) ** 2


class CausalText(TextTower):
    """Text transformer in which a token sees those before it, read at the EOT: the highest id of a text, or where the
    ids have another order (MetaCLIP 2), the first `eos_id`."""

    has = frozenset({towers.LEARNED_CONTEXT, towers.CAUSAL_TEXT, towers.JOINING_TEXT_TOKENS})

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        width, self.eos_id = config.text_width, config.eos_id
        activation = config.text_activation or config.activation
        self.transformer = Transformer(width, config.text_layers, config.text_heads, config.text_mlp, activation)
        # not by its own normal_: on the meta device that imports all of torch.compile, a third of the time of a start
        self.token_embedding = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, width))
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width))
        self.ln_final = LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, config.embed_dim))

    @property
    def dtype(self) -> torch.dtype:
        return self.text_projection.dtype

    def places(self, longest: int) -> int:
        return longest

    def features(
        self,
        context: Tensor,
        suffixes: Suffixes,
        deep: Tensor | None = None,
        *,
        through: Sequence[Block] | None = None,
    ) -> Tensor:
        return shared_prefix_features(self, context, suffixes, deep, through=through)

    def below(self, context: Tensor, suffixes: Suffixes, block: int) -> Halfway:
        return joining.below(self, context, suffixes, block)

    def above(
        self, halfway: Halfway, suffixes: Suffixes, common: Tensor | None = None, own: Tensor | None = None
    ) -> Tensor:
        return joining.above(self, halfway, suffixes, common, own)

    def encode(self, tokens: Tensor) -> Tensor:
        ids = tokens if self.eos_id is None else (tokens == self.eos_id).int()
        lengths = ids.argmax(-1) + 1  # of equal values, the first
        return self.encode_embeddings(self.token_embedding(tokens[:, : int(lengths.max())]), lengths)

    def encode_embeddings(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """T may be the longest length. Many classes run in chunks that are recomputed in the backward pass, so that
        memory does not grow with C."""
        rows = max(1, towers.TEXT_CHUNK_TOKENS // embeddings.shape[1])
        if len(embeddings) <= rows:
            return self._encode_chunk(embeddings, lengths)
        recompute = torch.is_grad_enabled() and embeddings.requires_grad
        chunks = zip(embeddings.split(rows), lengths.split(rows), strict=True)
        run = self._encode_chunk
        return torch.cat([checkpoint(run, *c, use_reentrant=False) if recompute else run(*c) for c in chunks])

    def _encode_chunk(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        x = (embeddings + self.positional_embedding[: embeddings.shape[1]]).float()
        *blocks, last = self.transformer.blocks
        for block in blocks:
            x = self.transformer.run(causal, block, x)
        eot = x[torch.arange(len(x), device=x.device), lengths - 1].unsqueeze(1)  # (C, 1, W)
        padding = torch.arange(x.shape[1], device=x.device) >= lengths.unsqueeze(1)  # (C, T)
        mask = torch.zeros(padding.shape, dtype=self.dtype, device=x.device).masked_fill_(padding, -torch.inf)
        return self.project(last.read(x, eot, mask[:, None, None])[:, 0])

    def project(self, hidden: Tensor) -> Tensor:
        """Final norm and projection of the EOT's hidden states: (.., W) -> (.., D) float32."""
        return (self.ln_final(hidden, self.dtype) @ self.text_projection).float()

    def matrices(self) -> tuple[nn.Parameter, ...]:
        return (self.text_projection,)


FAMILIES: dict[str, tuple[Callable[[CLIPConfig], VisionTower], Callable[[CLIPConfig], TextTower]]] = {
    "clip": (ViT, CausalText),
    "siglip": (MAPViT, FullText),
    "resnet": (ResNet, CausalText),
    "metaclip2": (ViT, CausalText),
    "pe": (PEViT, CausalText),
    "eva": (EVAViT, CausalText),
}


class CLIP(nn.Module):
    """Both towers, frozen. `CLIP(config)` has uninitialised weights: load a state dict.

    State dicts name the parameters as OpenAI does, those of the text tower without a prefix.
    """

    logit_bias: nn.Parameter | None
    """Added to exp(logit_scale) cosines where the checkpoint was trained by sigmoids (SigLIP), a scalar; else None."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        vision, text = FAMILIES[config.family]
        self.visual, self.text = vision(config), text(config)
        self.logit_scale = nn.Parameter(torch.full((), 4.6052))
        self.register_parameter("logit_bias", nn.Parameter(torch.zeros(())) if config.family == "siglip" else None)
        self.register_state_dict_post_hook(_without_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_prefix)  # type: ignore[no-untyped-call]
        self.requires_grad_(False)
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.logit_scale.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the frozen matrices."""
        return self.text.dtype

    @property
    def has(self) -> frozenset[str]:
        """What its towers have, of the constants of `daptune.clip.towers`."""
        return self.visual.has | self.text.has

    def set_precision(self, precision: Precision) -> "CLIP":
        """Store the frozen matrices and compute their products in `precision`; norms and embeddings stay float32."""
        if precision not in _DTYPES:
            raise BackboneError(f"precision must be one of {', '.join(_DTYPES)}, found {precision!r}.")
        dtype = _DTYPES[precision]
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(dtype)
            elif isinstance(module, Attention | VisionTower | TextTower):
                for matrix in module.matrices():
                    matrix.data = matrix.data.to(dtype)
        return self

    def encode_image(
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
        """Image features, not normalised: (B, 3, R, R) -> (B, D) float32. Without `projected`, the class token after
        ln_post: (B, W). With `patches`, the class token followed by each patch: (B, 1 + G, D), with the same norm and
        projection, which were trained only on the class token.

        `prompts` are (J, P, W) for all images or (B, J, P, W) per image. Tokens of the first layer are added to the
        sequence after ln_pre (VPT, DAPT) or before it (`before_ln_pre`: MaPLe, PromptSRC); those of layer j < J replace
        the prompts' outputs at the input of block j. Without `pool_prompts`, a MAP head pools over the patches alone.
        `through` replaces the tower's blocks (`daptune.clip.lora`).
        """
        if prompts is not None and not 1 <= prompts.shape[-3] <= self.config.vision_layers:
            raise BackboneError(
                f"prompt depth must be 1 to {self.config.vision_layers} (the vision tower's layers), "
                f"found {prompts.shape[-3]}."
            )
        groups = self._groups(images, 0 if prompts is None else prompts.shape[-2])
        each = prompts.tensor_split(groups) if prompts is not None and prompts.dim() == 4 else [prompts] * groups
        found = [
            self.visual(
                *part,
                before_ln_pre=before_ln_pre,
                pool_prompts=pool_prompts,
                projected=projected,
                patches=patches,
                through=through,
            )
            for part in zip(images.tensor_split(groups), each, strict=True)
        ]
        return found[0] if groups == 1 else torch.cat(found)

    def _groups(self, images: Tensor, prompts: int) -> int:
        """Number of groups of about equal size to split the images (B, 3, R, R) into, with `prompts` prompts each."""
        if images.device.type != "cpu" or torch.compiler.is_compiling():
            return 1
        return max(1, round(len(images) * self.visual.widest(prompts) / IMAGE_CHUNK_NUMBERS))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Text features of whole texts, not normalised: ids (C, T) of the tokenizer -> (C, D) float32."""
        return self.text.encode(tokens)


def _without_prefix(clip: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Take "text." off the names of a state dict, in OpenAI's order: the text tower's own tensors, the image tower, the
    text tower's layers."""

    def order(name: str) -> int:
        own = name.removeprefix(prefix)
        return 1 if not own.startswith(TEXT) else 2 if "." in own.removeprefix(TEXT) else 0

    for name in sorted(state, key=order):
        ours = prefix + name.removeprefix(prefix + TEXT) if name.startswith(prefix + TEXT) else name
        state[ours] = state.pop(name)


def _with_prefix(clip: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Put it back for loading."""
    theirs = tuple(prefix + name for name in ("visual.", "logit_", TEXT))
    for name in list(state):
        if name.startswith(prefix) and not name.startswith(theirs):
            state[f"{prefix}{TEXT}{name.removeprefix(prefix)}"] = state.pop(name)
