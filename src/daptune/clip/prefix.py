"""Shared-prefix text tower: exact class text features at the cost of the class names only.

A prompt is [SOS | context | name . EOT]. The text tower is causal and read at the EOT, so (1) tokens after the EOT do
not matter, and (2) with a context shared by all classes, SOS and context have the same hidden states for every class in
every layer. The prefix therefore runs once; the S tokens of each class's suffix attend to its keys and values and
causally to each other. The cost falls from 77 C tokens to 1 + M + sum of S. The same holds for deep prompts on the
prefix (MaPLe), several contexts (PLOT, ProDA) and a context per image (CoCoOp): N prefixes, C suffixes.

Suffixes are packed into K lines of equal length L, separated by a mask. There is hardly any padding, and attention
takes a few large products instead of C small ones.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import BackboneError
from ..names import readable
from . import model
from .model import CLIP, Block, attend
from .pooling import NamePool, Names, pool_names

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

LINE_TOKENS = 48  # tokens per line: longer lines waste products on masked pairs, shorter ones tokens on padding


@dataclass(frozen=True)
class Suffixes:
    """The tokens `name . EOT` of C classes, packed into K lines of L tokens.

    Where classes have several names, there is a suffix for each name, and `pool` makes one feature of those of a class.
    """

    sot: int
    """Id of the token that starts every text."""
    tokens: Tensor
    """(K, L) ids; 0 is padding."""
    positions: Tensor
    """(K, L) position of each token in its suffix."""
    visible: Tensor
    """(K, L, L) True where a token (row) attends to another: itself and the previous ones of its suffix."""
    ends: Tensor
    """(C,) positions of the EOTs in the flattened lines, ascending."""
    order: Tensor
    """(C,) the row of `ends` for class c."""
    before: tuple[int, ...]
    """(K + 1) number of EOTs before a line."""
    pool: NamePool | None = None
    """None: one name for each class."""
    _elsewhere: dict[torch.device, "Suffixes"] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def build(cls, tokenizer: "Tokenizer", class_names: Names, context_tokens: int, *, cut: int = 0) -> "Suffixes":
        """Tokenise `name.` of each class, or of each of its names, after M = `context_tokens`.

        The first `cut` tokens of each are then left out.
        """
        names, pool = pool_names(class_names)
        ids = [name_tokens(tokenizer, name) for name in names]
        room = tokenizer.context_length - 1 - context_tokens
        if room < 3:  # a word, the full stop and the EOT: too short for any name
            raise BackboneError(
                f"{context_tokens} context tokens leave no room for class names in the backbone's "
                f"{tokenizer.context_length}: learn fewer context tokens, {tokenizer.context_length - 4} at most."
            )
        for name, suffix in zip(names, ids, strict=True):
            if len(suffix) > room:
                raise BackboneError(
                    f"class name {name!r} takes {len(suffix)} tokens, but {room} of the backbone's "
                    f"{tokenizer.context_length} are left beside {context_tokens} context tokens: shorten the name "
                    "or learn fewer context tokens."
                )
        return cls.pack(tokenizer.sot, [suffix[cut:] for suffix in ids], pool)

    @classmethod
    def of_texts(
        cls, tokenizer: "Tokenizer", texts: Sequence[str], pool: NamePool | None = None
    ) -> tuple[Tensor, "Suffixes"]:
        """Split C texts into the ids (M,) of their common prefix, without the start, and their suffixes."""
        rows = [row[: int(row.argmax()) + 1].tolist() for row in tokenizer(texts)]  # [SOS .. EOT]
        common = 1
        while all(len(row) > common + 1 and row[common] == rows[0][common] for row in rows):
            common += 1
        suffixes = cls.pack(tokenizer.sot, [row[common:] for row in rows], pool)
        return torch.tensor(rows[0][1:common], dtype=torch.int64), suffixes

    @classmethod
    def pack(cls, sot: int, ids: Sequence[Sequence[int]], pool: NamePool | None = None) -> "Suffixes":
        """Pack the ids of C suffixes, including the EOT."""
        lines = _pack([len(suffix) for suffix in ids])
        length = max(sum(len(ids[c]) for c in line) for line in lines)
        table = torch.zeros(3, len(lines), length, dtype=torch.int64)
        ends = [0] * len(ids)
        for k, line in enumerate(lines):
            parts = [ids[c] for c in line]
            row = torch.tensor(
                [
                    [token for part in parts for token in part],
                    [c + 1 for c, part in zip(line, parts, strict=True) for _ in part],  # 0: padding
                    [place for part in parts for place in range(len(part))],
                ]
            )
            table[:, k, : row.shape[1]] = row
            for c, end in zip(line, accumulate(map(len, parts)), strict=True):
                ends[c] = k * length + end - 1
        tokens, owner, positions = table
        visible = (owner.unsqueeze(2) == owner.unsqueeze(1)).tril()
        ranked, classes = torch.tensor(ends, dtype=torch.int64).sort()
        before = tuple(accumulate(map(len, lines), initial=0))
        return cls(sot, tokens, positions, visible, ranked, classes.argsort(), before, pool)

    def to(self, device: torch.device) -> "Suffixes":
        """A copy on a device, made once: a copy in every step would block the CPU."""
        if device == self.tokens.device:
            return self
        if device not in self._elsewhere:
            with torch.inference_mode(False):  # training after prediction needs normal tensors
                names = ("tokens", "positions", "visible", "ends", "order")
                parts: dict[str, Any] = {name: getattr(self, name).to(device) for name in names}
            pool = self.pool and self.pool.to(device)
            self._elsewhere[device] = replace(self, **parts, pool=pool, _elsewhere={})
        return self._elsewhere[device]


def name_tokens(tokenizer: "Tokenizer", name: str) -> list[int]:
    return [*tokenizer.encode(readable(name) + "."), tokenizer.eot]


def _pack(lengths: list[int]) -> list[list[int]]:
    """Distribute suffixes over lines of nearly equal length: longest first, each to the shortest line so far."""
    lines: list[list[int]] = [[] for _ in range(max(1, sum(lengths) // LINE_TOKENS))]
    shortest = [(0, k) for k in range(len(lines))]
    for c in sorted(range(len(lengths)), key=lambda c: -lengths[c]):
        used, k = shortest[0]
        lines[k].append(c)
        heapq.heapreplace(shortest, (used + lengths[c], k))
    return [line for line in lines if line]


def shared_prefix_features(
    clip: CLIP,
    context: Tensor,
    suffixes: Suffixes,
    deep: Tensor | None = None,
    *,
    through: Sequence[Block] | None = None,
) -> Tensor:
    """Text features, not normalised, of N contexts x C classes: context (N, M, W) -> (N, C, D) float32.

    `deep` (J - 1, m, W) or (N, J - 1, m, W), m <= M, replaces the outputs at positions 1..m at the input of blocks
    1..J - 1. `through` replaces the tower's blocks. Many classes run in chunks that are recomputed in the backward
    pass, so that memory does not grow with C.
    """
    blocks, suffixes = through or clip.transformer.blocks, suffixes.to(clip.device)
    prefix = [tensor for pair in _prefix_keys_values(clip, blocks, suffixes.sot, context, deep) for tensor in pair]
    start = 1 + context.shape[1]
    count, length = suffixes.tokens.shape
    lines = max(1, model.TEXT_CHUNK_TOKENS // (len(context) * length))
    learned = context.requires_grad or through is not None
    recompute = lines < count and torch.is_grad_enabled() and learned

    def run(first: int, *prefix: Tensor) -> Tensor:
        return _suffix_features(clip, blocks, suffixes, slice(first, min(first + lines, count)), start, prefix)

    parts = [
        checkpoint(run, first, *prefix, use_reentrant=False) if recompute else run(first, *prefix)
        for first in range(0, count, lines)
    ]
    features = torch.cat(parts, 1).index_select(1, suffixes.order)
    return features if suffixes.pool is None else suffixes.pool(features)


def _prefix_keys_values(
    clip: CLIP, through: Sequence[Block], sot: int, context: Tensor, deep: Tensor | None
) -> list[tuple[Tensor, Tensor]]:
    """Keys and values (N, H, 1 + M, W/H) of SOS and context in every layer."""
    sos = clip.token_embedding.weight[sot].expand(len(context), 1, -1)
    x = torch.cat([sos, context], 1) + clip.positional_embedding[: 1 + context.shape[1]]  # (N, 1 + M, W)
    layers = [] if deep is None else list(deep.unbind(-3))
    *blocks, last = through
    found = []
    for depth, block in enumerate(blocks):
        if 0 < depth <= len(layers):
            x = _replace(x, layers[depth - 1])
        x, key, value = clip.transformer.run(_keep, block, x)
        found.append((key, value))
    if len(layers) >= len(blocks) > 0:
        x = _replace(x, layers[len(blocks) - 1])
    key, value = last.project(x, 1, 3)
    return [*found, (key, value)]


def _keep(block: Block, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The block's output for the prefix x (N, 1 + M, W), and its keys and values."""
    query, key, value = block.project(x)
    return block.finish(x, attend(query, key, value, causal=True)), key, value


def _replace(x: Tensor, tokens: Tensor) -> Tensor:
    """Put deep prompts (m, W) or (N, m, W) at positions 1..m of x (N, 1 + M, W)."""
    tokens = tokens.expand(len(x), -1, -1)
    return torch.cat([x[:, :1], tokens, x[:, 1 + tokens.shape[1] :]], 1)


def _suffix_features(
    clip: CLIP, through: Sequence[Block], suffixes: Suffixes, lines: slice, start: int, prefix: Sequence[Tensor]
) -> Tensor:
    """Features (N, C', D) of the C' classes in `lines`, whose suffixes begin at position `start`; `prefix` alternates
    keys and values of each layer."""
    tokens, positions = suffixes.tokens[lines], suffixes.positions[lines]
    apart = ~suffixes.visible[lines].unsqueeze(1)
    mask = torch.zeros(apart.shape, dtype=clip.dtype, device=clip.device).masked_fill_(apart, -torch.inf)
    mask = torch.nn.functional.pad(mask, (start, 0))  # (K', 1, L, 1 + M + L): all see the prefix

    x = clip.token_embedding(tokens) + clip.positional_embedding[start + positions]
    x = x.expand(len(prefix[0]), -1, -1, -1)  # (N, K', L, W)
    *blocks, last = through
    for block, key, value in zip(blocks, prefix[::2], prefix[1::2], strict=False):
        x = clip.transformer.run(_continue, block, x, key, value, mask)
    attended = _look(last, x, prefix[-2], prefix[-1], mask).transpose(-3, -2)  # (N, K', L, H, W/H)
    ends = suffixes.ends[suffixes.before[lines.start] : suffixes.before[lines.stop]] - lines.start * tokens.shape[1]
    eot, attended = (part.flatten(1, 2).index_select(1, ends) for part in (x, attended))
    return clip.project_text(last.finish(eot, attended.transpose(-3, -2)))


def _continue(block: Block, x: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The block's output for suffixes x after a prefix with these keys and values; shapes as in `_look`."""
    return block.finish(x, _look(block, x, key, value, mask))


def _look(block: Block, x: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention of x (N, K', L, W) to itself and the prefix (N, H, 1 + M, W/H): (N, K', H, L, W/H)."""
    query, own_key, own_value = block.project(x)
    shared = (part.unsqueeze(1).expand(-1, x.shape[1], -1, -1, -1) for part in (key, value))
    key, value = (torch.cat(pair, -2) for pair in zip(shared, (own_key, own_value), strict=True))
    return attend(query, key, value, mask=mask)
