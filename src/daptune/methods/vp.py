"""VP: learn pixels that are added to every image; both towers stay frozen.

Bahng, Jahanian, Sankaranarayanan & Isola, "Exploring Visual Prompts for Adapting Large-Scale Models", 2022,
arXiv 2203.17274, section 3. Official: hjbahng/visual_prompting models/prompters.py, main_clip.py.

The pixels are added to the normalised image and are not clamped, as in the official code. Differences to it: pixels
start at 0, so that training starts from zero-shot CLIP, instead of noise that takes 1,000 epochs to unlearn
(`initial_std=1`); the random patch moves only in training and is in the top left corner in prediction, which is thus
deterministic; it may reach the last row and column, which numpy's choice(R - p) excludes; class names keep their "-";
text features are computed once; no epoch is chosen on test images.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .options import Weight, at_least, one_of
from .zero_shot import ZeroShot, ZeroShotConfig

SHAPES = ("padding", "fixed_patch", "random_patch")
SIDES = ("up", "down", "left", "right")


@dataclass(frozen=True)
class VPConfig(ZeroShotConfig):
    """Options of VP: those of its pixels and of the frozen text classifier."""

    prompt_shape: Annotated[str, one_of(SHAPES)] = "padding"
    """padding (a frame), fixed_patch (a square in the top left corner), random_patch (a new position each step)."""
    prompt_pixels: Annotated[int, at_least(0, "0 (in proportion), 1 pixel or more")] = 0
    """Width of the frame, or side of the patch, p; 0: in proportion to the paper's 30 of 224."""
    initial_std: Weight = 0.0
    """Standard deviation of the initial pixels (image pixels: about 1); 1 in the official code."""


class VP(ZeroShot):
    """z = image(x + u); u holds learned pixels in a frame or a square and is 0 elsewhere."""

    name = "vp"
    title = "Visual Prompting (VP)"
    year = 2022
    config_class = VPConfig
    default_lr = 0.05  # the scale of pixels is larger than that of tokens
    multi_label = True
    config: VPConfig

    def build(self, generator: torch.Generator) -> None:
        """The frame's strips, up and down (3, p, R), left and right (3, R - 2p, p), or the patch (3, p, p)."""
        super().build(generator)
        side = self.clip.config.image_size
        self.pixels = p = self.config.prompt_pixels or max(1, round(side * 30 / 224))
        most = (side - 1) // 2 if self.config.prompt_shape == "padding" else side
        fits = f"0 to {most}, what fits an image of {side} x {side} pixels"
        self.config.require("prompt_pixels", p <= most, fits)
        strips = dict(zip(SIDES, [(3, p, side)] * 2 + [(3, side - 2 * p, p)] * 2, strict=True))
        for name, shape in (strips if self.config.prompt_shape == "padding" else {"patch": (3, p, p)}).items():
            values = torch.randn(shape, generator=generator) * self.config.initial_std
            self.register_parameter(name, nn.Parameter(values.to(self.clip.device)))

    def pixel_prompt(self, top: int = 0, left: int = 0) -> Tensor:
        """The pixels added to an image, (3, R, R); the corner of a patch is at row `top`, column `left`."""
        own = dict(self.named_parameters())
        side = self.clip.config.image_size
        if "patch" in own:
            last = side - self.pixels
            return F.pad(own["patch"], (left, last - left, top, last - top))
        centre = own["left"].new_zeros(3, side - 2 * self.pixels, side - 2 * self.pixels)
        return torch.cat([own["up"], torch.cat([own["left"], centre, own["right"]], 2), own["down"]], 1)

    def image_features(self, images: Tensor) -> Tensor:
        return super().image_features(images + self.pixel_prompt())

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy; the random patch has one position per batch, as in the official code."""
        if self.config.prompt_shape != "random_patch":
            return super().losses(images, labels)
        last = self.clip.config.image_size - self.pixels
        top, left = torch.randint(last + 1, (2,)).tolist()
        z = super().image_features(images + self.pixel_prompt(top, left))
        loss = self.cross_entropy(self.scaled(z, self.text_features()), labels)
        return {"cross_entropy": loss, "total": loss}
