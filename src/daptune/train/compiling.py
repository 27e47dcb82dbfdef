"""The blocks of the frozen towers run through torch.compile for as long as a training lasts.

Blocks are compiled rather than towers: one compiled block serves all layers of its tower, so that compiling takes the
time of one, and what happens between blocks (deep prompts, recomputation, chunks of classes) stays as it is. Modules
are not touched: a tower asks `Transformer.run` to run a part of a block, and here another one stands in its place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from daptune.errors import TrainingError
from daptune.methods.base import Method

MOST_SHAPES = 64
"""Of one part of a block, each compiled by itself: batches to train and validate on, last ones, chunks of classes."""


def check_compiler(device: torch.device) -> None:
    """Raises `TrainingError` where torch.compile cannot work."""
    try:
        torch.compile(torch.neg, fullgraph=True)(torch.ones(2, device=device))
    except Exception as error:  # of a dozen kinds, by what is missing
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        needed = "a C++ compiler (such as g++)" if device.type == "cpu" else "what torch.compile needs there"
        raise TrainingError(
            f"compile=True expected {needed} to build for {device.type}, found: {reason.rstrip('.')}; "
            "install it, or train without --compile."
        ) from error


@contextmanager
def compiled_blocks(method: Method, wanted: bool) -> Iterator[Callable[[], None]]:
    """The method's towers with compiled blocks inside, as they were outside. Yields what is to be called when a step
    begins, and between batches of an evaluation: CUDA graphs then use the memory of the last one anew."""
    if not wanted:
        yield lambda: None
        return
    clip = method.backbone.clip
    graphs = clip.device.type == "cuda"
    parts: dict[Any, Any] = {}

    def run(part: Callable[..., Any], *inputs: Any) -> Any:
        if part not in parts:
            # a shape is compiled as it is, in whatever order they come: so a run that goes on gets the same bits
            parts[part] = torch.compile(part, dynamic=False, mode="reduce-overhead" if graphs else None)
        return parts[part](*inputs)

    import torch._dynamo.config as limits

    towers = (clip.visual.transformer, clip.transformer)
    try:
        for tower in towers:
            tower.run = run  # type: ignore[method-assign]
        with limits.patch(recompile_limit=MOST_SHAPES):
            yield torch.compiler.cudagraph_mark_step_begin if graphs else lambda: None
    finally:
        for tower in towers:
            del tower.run
