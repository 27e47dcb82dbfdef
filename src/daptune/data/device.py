"""Augmentation on the device of the method: workers only decode and draw the random numbers.

Crop, flip and resize are those of `augment`: bicubic with a = -0.5 and antialiasing, first along rows and then along
columns, clipped to 0..255 and rounded after each. Pillow uses fixed-point weights and this module float32, so that a
few pixels differ by 1 or 2 of 255. Newer versions of Pillow resize along columns first for some shapes: pixels then
differ by 0.4 on average and by 25 next to hard edges.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from daptune.data.augment import Augmentation, cut


class Preprocess(Protocol):
    """Interface of a backbone's preprocessing; R is `size`."""

    @property
    def size(self) -> int: ...
    @property
    def mean(self) -> tuple[float, float, float]: ...
    @property
    def std(self) -> tuple[float, float, float]: ...

    def __call__(self, image: Image.Image, /) -> Tensor:
        """Evaluation transform of an RGB image: float32 (3, R, R)."""

    def array(self, image: Image.Image, /) -> npt.NDArray[np.float32]:
        """The same as an array."""

    def normalize(self, pixels: npt.NDArray[np.uint8], /) -> Tensor:
        """uint8 (R, R, 3) -> float32 (3, R, R)."""


@dataclass(frozen=True)
class Cut:
    """A crop of an image, not resized, uint8 (h, w, 3), and its target device."""

    pixels: Tensor
    flipped: bool
    device: torch.device

    @classmethod
    def draw(
        cls, image: Image.Image, rng: np.random.Generator, augmentation: Augmentation, device: torch.device
    ) -> "Cut":
        """Crop an image in a worker; for a GPU, into pinned memory for an asynchronous copy."""
        crop, flipped = cut(image, rng, augmentation)
        pixels = torch.from_numpy(np.array(crop))
        return cls(pixels.pin_memory() if device.type == "cuda" else pixels, flipped, device)

    def view(self, preprocess: Preprocess) -> Tensor:
        """The view on the device, resized, flipped and normalised: float32 (3, R, R)."""
        pixels = self.pixels.to(self.device, non_blocking=True).permute(2, 0, 1).unsqueeze(0).float()
        side = preprocess.size
        for shape in ((pixels.shape[2], side), (side, side)):  # first along rows, then along columns
            pixels = F.interpolate(pixels, shape, mode="bicubic", antialias=True).clamp_(0, 255).round_()
        view = pixels[0].flip(-1) if self.flipped else pixels[0]
        # channel by channel: means and deviations as Python numbers need no copy to the device
        return torch.stack(
            [(part / 255 - mean) / std for part, mean, std in zip(view, preprocess.mean, preprocess.std, strict=True)]
        )
