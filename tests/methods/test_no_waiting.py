"""No training step makes the processor wait for the device: nothing on the device is looked at, nothing copied to it.

A wait costs little on a processor, where nothing runs beside it; on a GPU it leaves the GPU idle until the next kernel
is launched. Neither test needs a GPU: both watch the operations that torch runs, the second with everything on the
device `meta`, which has no numbers to look at.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import daptune
from daptune.methods import METHODS, Method
from daptune.train.parallel import Ranks

from ..crossings import Crossings
from .test_matrix import build, each_method, shown

LOOKS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal"}  # and what torch tags as depending on values

MAY_LOOK = {
    "plot": "Sinkhorn's iterations stop by their change, as the official code's do: one look an iteration",
    "plot_pp": "the same",
}
"""Methods that look at the device in a step, and why."""


class Watch(TorchDispatchMode):
    """Names of the operations whose result, or its shape, the processor has to know; on `ignored` they do not count."""

    def __init__(self, ignored: list[Tensor]) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ignored = {tensor.data_ptr() for tensor in ignored}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        looks = bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))
        if name == "index":  # by numbers it has a known shape
            looks = any(rows is not None and rows.dtype == torch.bool for rows in args[1])
        if (looks or name in LOOKS) and args[0].data_ptr() not in self.ignored:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def step(method: Method, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    """What `fit_method` does with a batch."""
    learned = list(method.parameters())
    optimizer.zero_grad(set_to_none=True)
    terms = method.losses(images, labels)
    terms["total"].backward()
    Ranks().mean(terms, 1.0)
    Ranks().add_gradients(learned)
    nn.utils.clip_grad_norm_(learned, 1.0)
    optimizer.step()


@pytest.fixture(scope="module")
def tiny() -> Any:
    return daptune.load_backbone("tiny")


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_looked_at_in_a_step(name: str, tiny: Any) -> None:
    method, pictures = build(name, {}, tiny).train(), shown(tiny)
    method.before_fit(pictures)
    if not method.trainable:
        return
    optimizer = torch.optim.AdamW(method.parameters(), 0.01)
    step(method, optimizer, pictures.images, pictures.labels)
    counters = [state["step"] for state in optimizer.state.values()]  # which torch keeps on the host, wherever it runs
    with Watch(counters) as watch:
        step(method, optimizer, pictures.images, pictures.labels)
    assert bool(watch.found) == (name in MAY_LOOK), watch.found


@each_method
def test_everything_of_a_step_is_on_the_device(name: str, options: dict[str, object], backbone: Any) -> None:
    method, pictures = build(name, options, backbone).train(), shown(backbone)
    method.before_fit(pictures)
    if not method.trainable:
        return
    method.losses(pictures.images, pictures.labels)  # frozen text features are computed in the first step, and kept
    optimizer = torch.optim.AdamW(method.to("meta").parameters(), 0.01)
    images, labels = pictures.images.to("meta"), pictures.labels.to("meta")
    if name in MAY_LOOK:
        with pytest.raises(RuntimeError, match="cannot be called on meta tensors"):
            step(method, optimizer, images, labels)
        return
    step(method, optimizer, images, labels)  # in the first step on a device, what is constant moves there, and stays
    with Crossings() as crossings:
        step(method, optimizer, images, labels)
    assert not crossings.found


def test_the_watches_see() -> None:
    x = torch.arange(3.0)
    with Watch([]) as watch:
        x.sum().item(), bool(x.any()), x[x > 1], x.nonzero(), torch.equal(x, x + 1), x.unique()
    assert len(watch.found) == 6
    with Watch([x]) as watch:
        x[1:].sum() + x[torch.tensor([0, 2])].sum(), x[0].item()
    assert not watch.found
    with Crossings() as crossings:
        there = x.to("meta")
        there[torch.tensor([0, 2])] + there.sum()
    assert crossings.found == ["_to_copy", "index"]
