"""Transfer of batches to the device."""

import torch
from torch import Tensor


class Transfer:
    """Moves tensors to a device: `images, labels = transfer(images, labels)`.

    Copies to a GPU use pinned memory and a separate stream, so that they overlap with the previous step without
    blocking the CPU. Tensors already on the device are returned unchanged.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        if self._stream is None:
            return tuple(tensor.to(self.device) for tensor in tensors)
        here = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            moved = tuple(
                tensor.pin_memory().to(self.device, non_blocking=True) if tensor.device.type == "cpu" else tensor
                for tensor in tensors
            )
        here.wait_stream(self._stream)
        for tensor in moved:
            tensor.record_stream(here)  # keeps its memory while this stream may read it
        return moved
