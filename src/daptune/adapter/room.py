"""The memory that a method may take while it is built for an adapter: what the adapter's tensors need, and little more.

The options of a stranger's adapter are numbers such as `vision_tokens`. Whatever they say, the tensors that they make
must be those of the file, so one that is far larger is refused before its memory is taken.
"""

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from daptune.errors import MethodError

SLACK = 4_000_000
"""Numbers of a tensor that is not learned, such as the token ids of the class names; 16 MB in float32."""
PER_NAME = 400
"""More of them for each class name: its tokens in several prompts."""


_COUNTED = ("arange", "eye", "linspace", "logspace")  # made from one number


class Room(TorchDispatchMode):
    """Within it, a tensor whose size is given in numbers has at most `most` elements, else MethodError.

    shapes: of the tensors that the file holds. names: number of class names.
    """

    def __init__(self, shapes: Iterable[Iterable[int]], names: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 4 * max(map(math.prod, shapes), default=0) + SLACK + PER_NAME * names

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch's wrapper would import all of torch.compile, which takes as long as torch itself

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        for place, argument in enumerate(func._schema.arguments):
            if argument.name in ("size", "repeats"):
                value = args[place] if place < len(args) else given.get(argument.name)
                if isinstance(value, Tensor):  # of `repeat_interleave`: how often each row comes
                    self._check([int(value.sum())], 1)
                else:
                    self._check(value, args[0].numel() if argument.name == "repeats" else 1)
            elif argument.name in ("end", "n", "steps") and func.overloadpacket.__name__ in _COUNTED:
                self._check([args[place] if place < len(args) else given.get(argument.name)], 1)
        return func(*args, **given)

    def _check(self, sizes: Iterable[Any] | None, times: int) -> None:
        numbers = [abs(size) for size in sizes or () if isinstance(size, int | float)]
        if times * math.prod(numbers) > self.most:
            shape = " x ".join(f"{size:,}" for size in numbers)
            raise MethodError(f"its options ask for a tensor of {shape} numbers, far more than its file holds")
