"""Which operations of torch see two devices at once. The device `meta` stands for a GPU: it is there everywhere."""

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Crossings(TorchDispatchMode):
    """Names of the operations that see the device and the processor's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, Tensor)]
        if len({tensor.device.type for tensor in tensors}) > 1:
            self.found.append(func.overloadpacket.__name__)
        return result
