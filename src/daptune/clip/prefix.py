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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from . import towers
from .blocks import Block, attend
from .suffixes import Suffixes

if TYPE_CHECKING:
    from .model import CausalText

LINE_TOKENS = 48  # tokens per line: longer lines waste products on masked pairs, shorter ones tokens on padding


@dataclass(frozen=True)
class Lines:
    """The suffixes of K texts, packed into lines of L tokens."""

    before: tuple[int, ...]
    """(K + 1) number of EOTs before a line."""
    tokens: Tensor
    """(K, L) ids; 0 is padding."""
    positions: Tensor
    """(K, L) position of each token in its suffix."""
    visible: Tensor
    """(K, L, L) True where a token (row) attends to another: itself and the previous ones of its suffix."""
    ends: Tensor
    """(C,) positions of the EOTs in the flattened lines, ascending."""
    order: Tensor
    """(C,) the row of `ends` for suffix c."""

    @classmethod
    def pack(cls, ids: Sequence[Sequence[int]], device: torch.device | None = None) -> "Lines":
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
        tensors = [part.to(device) for part in (tokens, positions, visible, ranked, classes.argsort())]
        return cls(before, *tensors)


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
    text: "CausalText",
    context: Tensor,
    suffixes: Suffixes,
    deep: Tensor | None = None,
    *,
    through: Sequence[Block] | None = None,
) -> Tensor:
    """`TextTower.features` of a causal tower; deep prompts stand at positions 1..m.

    Many classes run in chunks that are recomputed in the backward pass, so that memory does not grow with C.
    """
    blocks, packed = through or text.transformer.blocks, packed_lines(text, suffixes)
    prefix = _prefix_keys_values(text, blocks, suffixes, context, deep)
    start = 1 + context.shape[1]

    def run(lines: slice, *prefix: Tensor) -> Tensor:
        return _suffix_features(text, blocks, packed, lines, start, prefix)

    learned = context.requires_grad or through is not None
    return in_order(in_chunks(run, packed, prefix, len(context), learned=learned), packed, suffixes)


def packed_lines(text: "CausalText", suffixes: Suffixes) -> Lines:
    """The suffixes in lines on the tower's device, packed once."""
    device = text.positional_embedding.device
    return suffixes.laid_out(device, lambda own: Lines.pack(own.ids, device))


def in_chunks(
    run: Callable[..., Tensor],
    packed: Lines,
    prefix: Sequence[tuple[Tensor, Tensor]],
    contexts: int,
    *,
    learned: bool,
) -> Tensor:
    """run(lines, keys and values of the prefix) for some of the lines at a time, joined along dimension 1.

    The chunks of many classes are recomputed in the backward pass if something is learned.
    """
    count, length = packed.tokens.shape
    size = max(1, towers.TEXT_CHUNK_TOKENS // (contexts * length))
    again = size < count and torch.is_grad_enabled() and learned
    shared = [tensor for pair in prefix for tensor in pair]
    chunks = [slice(first, min(first + size, count)) for first in range(0, count, size)]
    parts = [checkpoint(run, c, *shared, use_reentrant=False) if again else run(c, *shared) for c in chunks]
    return torch.cat(parts, 1)


def in_order(features: Tensor, packed: Lines, suffixes: Suffixes) -> Tensor:
    """Features (N, C, D) of the EOTs of the lines, in the order of the classes, one for each class."""
    found = features.index_select(1, packed.order)
    return found if suffixes.pool is None else suffixes.pool.to(found.device)(found)


def _prefix_keys_values(
    text: "CausalText", through: Sequence[Block], suffixes: Suffixes, context: Tensor, deep: Tensor | None
) -> list[tuple[Tensor, Tensor]]:
    """Keys and values (N, H, 1 + M, W/H) of SOS and context in every layer."""
    layers = () if deep is None else deep.unbind(-3)
    return read_prefix(text, through, opening(text, suffixes, context), layers)


def opening(text: "CausalText", suffixes: Suffixes, context: Tensor) -> Tensor:
    """The input (N, 1 + M, W) of the first block: SOS and context (N, M, W), with positions."""
    (sot,) = suffixes.start
    sos = text.row(sot).expand(len(context), 1, -1)
    return torch.cat([sos, context], 1) + text.positional_embedding[: 1 + context.shape[1]]


def run_prefix(
    text: "CausalText", blocks: Sequence[Block], x: Tensor, layers: Sequence[Tensor] = ()
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Keys and values (N, H, L, W/H) of x (N, L, W) in each block, and the output of the last.

    `layers[d]` (m, W) or (N, m, W) replaces positions 1..m at the input of block d + 1.
    """
    found = []
    for depth, block in enumerate(blocks):
        x, key, value = text.transformer.run(_keep, block, _deepened(x, layers, depth))
        found.append((key, value))
    return found, x


def read_prefix(
    text: "CausalText", blocks: Sequence[Block], x: Tensor, layers: Sequence[Tensor] = ()
) -> list[tuple[Tensor, Tensor]]:
    """`run_prefix` of which only the keys and values are read: the last block has no output."""
    *inner, last = blocks
    found, x = run_prefix(text, inner, x, layers)
    key, value = last.project(_deepened(x, layers, len(inner)), 1, 3)
    return [*found, (key, value)]


def _deepened(x: Tensor, layers: Sequence[Tensor], depth: int) -> Tensor:
    return _replace(x, layers[depth - 1]) if 0 < depth <= len(layers) else x


def _keep(block: Block, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The block's output for the prefix x (N, 1 + M, W), and its keys and values."""
    query, key, value = block.project(x)
    return block.finish(x, attend(query, key, value, causal=True)), key, value


def _replace(x: Tensor, tokens: Tensor) -> Tensor:
    """Put deep prompts (m, W) or (N, m, W) at positions 1..m of x (N, 1 + M, W)."""
    tokens = tokens.expand(len(x), -1, -1)
    return torch.cat([x[:, :1], tokens, x[:, 1 + tokens.shape[1] :]], 1)


def _suffix_features(
    text: "CausalText", through: Sequence[Block], packed: Lines, lines: slice, start: int, prefix: Sequence[Tensor]
) -> Tensor:
    """Features (N, C', D) of the C' classes in `lines`, whose suffixes begin at position `start`; `prefix` alternates
    keys and values of each layer."""
    x = entering(text, packed, lines, start).expand(len(prefix[0]), -1, -1, -1)
    return read_lines(text, through, x, packed, lines, start, prefix)


def entering(text: "CausalText", packed: Lines, lines: slice, start: int) -> Tensor:
    """The input (K', L, W) of the first block for `lines`, whose suffixes begin at position `start`."""
    tokens, positions = packed.tokens[lines], packed.positions[lines]
    return text.token_embedding(tokens) + text.positional_embedding[start + positions]


def run_lines(text: "CausalText", blocks: Sequence[Block], x: Tensor, prefix: Sequence[Tensor], mask: Tensor) -> Tensor:
    """The output of the blocks for lines x (N, K', L, W) behind a prefix; `mask` is that of `line_mask`."""
    for block, key, value in zip(blocks, prefix[::2], prefix[1::2], strict=False):
        x = text.transformer.run(_continue, block, x, key, value, mask)
    return x


def read_lines(
    text: "CausalText",
    blocks: Sequence[Block],
    x: Tensor,
    packed: Lines,
    lines: slice,
    start: int,
    prefix: Sequence[Tensor],
) -> Tensor:
    """Features (N, C', D) of the C' texts in `lines`, x (N, K', L, W), behind a prefix of `start` positions.

    The last block is computed for their EOTs alone.
    """
    *inner, last = blocks
    mask = line_mask(text, packed, lines, start)
    x = run_lines(text, inner, x, prefix, mask)
    attended = _look(last, x, prefix[-2], prefix[-1], mask).transpose(-3, -2)  # (N, K', L, H, W/H)
    ends = packed.ends[packed.before[lines.start] : packed.before[lines.stop]] - lines.start * x.shape[2]
    eot, attended = (part.flatten(1, 2).index_select(1, ends) for part in (x, attended))
    return text.project(last.finish(eot, attended.transpose(-3, -2)))


def line_mask(text: "CausalText", packed: Lines, lines: slice, start: int) -> Tensor:
    """Added to the scores of `lines`, (K', 1, L, start + L): all see the prefix, and of a line what is visible."""
    apart = ~packed.visible[lines].unsqueeze(1)
    mask = torch.zeros(apart.shape, dtype=text.dtype, device=apart.device).masked_fill_(apart, -torch.inf)
    return torch.nn.functional.pad(mask, (start, 0))


def _continue(block: Block, x: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The block's output for suffixes x after a prefix with these keys and values; shapes as in `_look`."""
    return block.finish(x, _look(block, x, key, value, mask))


def _look(block: Block, x: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention of x (N, K', L, W) to itself and the prefix (N, H, 1 + M, W/H): (N, K', H, L, W/H)."""
    query, own_key, own_value = block.project(x)
    shared = (part.unsqueeze(1).expand(-1, x.shape[1], -1, -1, -1) for part in (key, value))
    key, value = (torch.cat(pair, -2) for pair in zip(shared, (own_key, own_value), strict=True))
    return attend(query, key, value, mask=mask)
