"""Batches on their way to the device that computes."""

import torch
from torch import Tensor


class Transfer:
    """Brings tensors to a device: `images, labels = transfer(images, labels)`.

    To a GPU they go through pinned memory and on a stream of their own, so that a copy runs beside the step before,
    which the processor does not wait for. What is there already, as everything is on a processor, stays what it is.
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
            tensor.record_stream(here)  # its memory is not given to a later copy while this stream may read it
        return moved
