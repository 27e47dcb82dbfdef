"""Image transform of the vision tower, equal to torchvision's transform for CLIP within 1e-5.

openai/CLIP (clip/clip.py, `_transform`) and open_clip (src/open_clip/transform.py, `image_transform`): bicubic resize
of the shorter side with Pillow, centre crop, scale to 0..1, normalise. The configs of a few checkpoints squash both
sides instead (DFN5B) or resize bilinearly. Exported models use it without torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import BackboneError

if TYPE_CHECKING:
    from torch import Tensor

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_LONGEST = 32  # beyond this ratio of the sides, the ends are cut off before the resize to save memory


@dataclass(frozen=True)
class Preprocess:
    """The evaluation transform of a backbone.

    `size` R is in pixels; `mean` and `std` are per channel of RGB scaled to 0..1; `resize` is "shortest" (the shorter
    side becomes R, then a centre crop) or "squash" (both sides become R); `interpolation` is "bicubic" or "bilinear".
    """

    size: int = 224
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    resize: str = "shortest"
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("resize", self.resize, ("shortest", "squash")),
            ("interpolation", self.interpolation, tuple(_FILTERS)),
        ):
            if value not in known:
                raise BackboneError(f"preprocessing: {name} must be one of {', '.join(known)}, found {value!r}.")
        if self.size < 1 or len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise BackboneError(
                "preprocessing: expected a size of at least 1 and three means and positive deviations, "
                f"found size {self.size}, mean {self.mean}, std {self.std}."
            )

    def __call__(self, image: Image.Image) -> "Tensor":
        """An RGB image of any size -> (3, R, R) float32."""
        return self.normalize(np.asarray(self.crop(image)))

    def array(self, image: Image.Image) -> NDArray[np.float32]:
        return self.normalized(np.asarray(self.crop(image)))

    def crop(self, image: Image.Image) -> Image.Image:
        """An RGB image of any size, resized and cropped to R x R."""
        method, side = _FILTERS[self.interpolation], self.size
        if self.resize == "squash":
            return image.resize((side, side), method)
        width, height = image.size
        shorter, longer = min(width, height), max(width, height)
        if longer > _LONGEST * shorter:
            end = (longer - 4 * shorter) // 2
            wide = width > height
            box = (end, 0, width - end, height) if wide else (0, end, width, height - end)
            return self.crop(image.crop(box))
        length = int(side * longer / shorter)
        across, down = (length, side) if width >= height else (side, length)
        left, top = round((across - side) / 2), round((down - side) / 2)
        return image.resize((across, down), method).crop((left, top, left + side, top + side))

    def normalize(self, pixels: NDArray[np.uint8]) -> "Tensor":
        """uint8 (..., R, R, 3) -> float32 (..., 3, R, R)."""
        import torch

        return torch.from_numpy(self.normalized(pixels))

    def normalized(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same as an array."""
        mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (self.mean, self.std))
        scaled = np.moveaxis(pixels, -1, -3).astype(np.float32, order="C")
        scaled /= 255
        scaled -= mean
        scaled /= std
        return scaled

    def to_dict(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """The inverse of `to_dict`. Raises BackboneError for invalid values."""
        try:
            known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
            for name in ("mean", "std"):
                if name in known:
                    known[name] = tuple(float(value) for value in known[name])
            return cls(**known)
        except TypeError as error:
            raise BackboneError(f"preprocessing cannot be read from {dict(values)!r} ({error}).") from error
