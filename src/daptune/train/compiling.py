"""Run the blocks of the frozen towers through torch.compile during training.

Blocks are compiled instead of towers: one compiled block serves all layers of its tower, which saves compile time, and
the code between blocks (deep prompts, recomputation, chunks of classes) is unaffected. Modules are not changed: a tower
runs the parts of a block through `Transformer.run`, which is replaced here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from daptune.clip.blocks import Transformer
from daptune.errors import TrainingError
from daptune.methods.base import Method

MOST_SHAPES = 64
"""Compiled shapes of one part of a block: training and validation batches, last batches, chunks of classes."""


def check_compiler(device: torch.device) -> None:
    """Raises `TrainingError` if torch.compile does not work."""
    try:
        torch.compile(torch.neg, fullgraph=True)(torch.ones(2, device=device))
    except Exception as error:  # many types, depending on what is missing
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        needed = "a C++ compiler (such as g++)" if device.type == "cpu" else "what torch.compile needs there"
        raise TrainingError(
            f"compile=True expected {needed} to build for {device.type}, found: {reason.rstrip('.')}; "
            "install it, or train without --compile."
        ) from error


@contextmanager
def compiled_blocks(method: Method, wanted: bool) -> Iterator[Callable[[], None]]:
    """Compile the blocks of the method's towers inside. Yields a function to call before each step and between the
    batches of an evaluation, so that CUDA graphs reuse their memory."""
    if not wanted:
        yield lambda: None
        return
    clip = method.backbone.clip
    graphs = clip.device.type == "cuda"
    parts: dict[Any, Any] = {}

    def run(part: Callable[..., Any], *inputs: Any) -> Any:
        if part not in parts:
            # static shapes: the result must not depend on their order, so that a resumed run gives the same bits
            parts[part] = torch.compile(part, dynamic=False, mode="reduce-overhead" if graphs else None)
        return parts[part](*inputs)

    import torch._dynamo.config as limits

    towers = [module for module in clip.modules() if isinstance(module, Transformer)]
    try:
        for tower in towers:
            tower.run = run  # type: ignore[method-assign]
        with limits.patch(recompile_limit=MOST_SHAPES):
            yield torch.compiler.cudagraph_mark_step_begin if graphs else lambda: None
    finally:
        for tower in towers:
            del tower.run
