"""Tokens that join the texts of a causal tower at a middle block; what is below it is shared, or computed once.

Two kinds, at the input of block j (from 0), behind SOS:

    common   [SOS | r_1 .. r_n | context | name . EOT]  the same for all texts, inserted there and replaced in each
                                                        later block (MMRL): SOS, tokens and context stay a prefix
    own      [SOS | p_1 .. p_M | name . EOT]            each text's own, in place of its context (TCP), and left to flow
                                                        on: above, only SOS is a prefix

Below block j all texts share their context, so the shared prefix (`daptune.clip.prefix`) is exact there; if nothing
of it is learned, `below` is called once. Above, it is exact for what is common. SOS sees no other token.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .prefix import (
    Lines,
    entering,
    in_chunks,
    in_order,
    line_mask,
    opening,
    packed_lines,
    read_lines,
    read_prefix,
    run_lines,
    run_prefix,
)
from .suffixes import Suffixes
from .towers import Halfway

if TYPE_CHECKING:
    from .model import CausalText


def below(text: "CausalText", context: Tensor, suffixes: Suffixes, block: int) -> Halfway:
    """`TextTower.below` of a causal tower: the prefix (1, 1 + M, W), and the suffixes in lines (1, K, L, W)."""
    blocks, packed = text.transformer.blocks[:block], packed_lines(text, suffixes)
    prefix, x = run_prefix(text, blocks, opening(text, suffixes, context.unsqueeze(0)))
    start = 1 + len(context)

    def run(lines: slice, *prefix: Tensor) -> Tensor:
        own = entering(text, packed, lines, start).unsqueeze(0)
        return run_lines(text, blocks, own, prefix, line_mask(text, packed, lines, start))

    return Halfway(block, x, in_chunks(run, packed, prefix, 1, learned=context.requires_grad))


def above(
    text: "CausalText", halfway: Halfway, suffixes: Suffixes, common: Tensor | None = None, own: Tensor | None = None
) -> Tensor:
    """`TextTower.above` of a causal tower."""
    x, states, packed, layers = halfway.common, halfway.own, packed_lines(text, suffixes), tuple[Tensor, ...]()
    if common is not None:
        x = torch.cat([x[:, :1], common[:1], x[:, 1:]], 1)
        layers = common[1:].unbind()
    if own is not None:
        count, device = own.shape[1], x.device
        wide = suffixes.laid_out(device, lambda s: _Wide.pack(s, count, device), f"own {count}")
        if suffixes.pool is not None:
            own = own.index_select(0, suffixes.pool.to(x.device).owners)  # for each name its class's
        rows = torch.cat([states.flatten(0, 2), own.flatten(0, 1)])
        x, states, packed = x[:, :1], rows[wide.source].unsqueeze(0), wide.lines
    blocks, start = text.transformer.blocks[halfway.block :], x.shape[1]

    def run(lines: slice, *prefix: Tensor) -> Tensor:
        return read_lines(text, blocks, states[:, lines], packed, lines, start, prefix)

    learned = any(tensor.requires_grad for tensor in (x, states, *layers))
    found = in_chunks(run, packed, read_prefix(text, blocks, x, layers), 1, learned=learned)
    return in_order(found, packed, suffixes)[0]


@dataclass(frozen=True)
class _Wide:
    """Lines of texts with m tokens of their own before each suffix."""

    lines: Lines
    source: Tensor
    """(K', L') the row of each place among those of the narrow lines, followed by the own tokens."""

    @classmethod
    def pack(cls, suffixes: Suffixes, own: int, device: torch.device) -> "_Wide":
        long = [(0,) * own + ids for ids in suffixes.ids]
        here = Lines.pack(long)  # on the CPU, where places are read
        narrow = suffixes.laid_out(torch.device("cpu"), lambda s: Lines.pack(s.ids))
        source = torch.zeros(here.tokens.numel(), dtype=torch.int64)
        ends = (lines.ends[lines.order].tolist() for lines in (here, narrow))
        for text, (to, since, ids) in enumerate(zip(*ends, suffixes.ids, strict=True)):
            size, first = len(ids), narrow.tokens.numel() + text * own
            source[to + 1 - size : to + 1] = torch.arange(since + 1 - size, since + 1)
            source[to + 1 - size - own : to + 1 - size] = torch.arange(first, first + own)
        lines = here if device.type == "cpu" else Lines.pack(long, device)
        return cls(lines, source.view(here.tokens.shape).to(device))
