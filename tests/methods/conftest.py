"""A made-up backbone of a few kilobytes with CLIP's own tokenizer, and pictures to learn from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from daptune.clip.model import CLIP, CLIPConfig
from daptune.clip.preprocess import Preprocess
from daptune.clip.tokenizer import Tokenizer
from daptune.data.loader import ImageLoader
from daptune.data.table import ImageTable

from ..clip.test_model import CONFIG, made_up_clip

NAMES = ["cat", "sea_lake", "Boeing 737-800", "antirrhinum"]

VIT_B_16 = CLIPConfig(
    embed_dim=512, image_size=224, patch_size=16, vision_width=768, vision_layers=12, vision_heads=12, vision_mlp=3072,
    context_length=77, vocab_size=49408, text_width=512, text_layers=12, text_heads=8, text_mlp=2048,
)  # fmt: skip


@dataclass
class MadeUp:
    """Stands for `daptune.clip.backbone.Backbone`."""

    clip: CLIP
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    name: str = "made-up"
    sha256: str = "0" * 64
    precision: str = "fp32"

    def to(self, device: Any) -> "MadeUp":
        self.clip.to(device)
        return self


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.fixture
def backbone(tokenizer: Tokenizer) -> Any:
    """A CLIP of random weights, so Any: a stand-in for Backbone."""
    return MadeUp(made_up_clip(replace(CONFIG, context_length=77, vocab_size=tokenizer.vocab_size)), tokenizer)


@pytest.fixture(scope="session")
def vit_b_16(tokenizer: Tokenizer) -> Any:
    """The shapes of ViT-B/16 without its numbers."""
    with torch.device("meta"):
        return MadeUp(CLIP(VIT_B_16), tokenizer)


class Pictures(ImageLoader):
    """A loader of tensors in memory; an augmented view adds noise that `view` alone decides."""

    def __init__(self, images: Tensor, labels: Tensor, batch: int = 5) -> None:
        names = tuple(f"class {number}" for number in range(int(labels.max()) + 1))
        table = ImageTable(tuple(images.numpy()), labels.numpy(), names)
        super().__init__(table, Preprocess(images.shape[-1]), batch, augment=True, drop_last=False)
        self.images, self.labels, self.batch = images, labels, batch

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        yield from list(self.augmented_view(epoch))[start_batch:]

    def evaluation(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.images.split(self.batch), self.labels.split(self.batch), strict=True)

    def augmented_view(self, view: int) -> Iterator[tuple[Tensor, Tensor]]:
        noise = torch.randn(self.images.shape, generator=torch.Generator().manual_seed(view))
        yield from zip((self.images + 0.3 * noise).split(self.batch), self.labels.split(self.batch), strict=True)


def make_pictures(classes: int, shots: int, seed: int = 0, side: int = 32) -> Pictures:
    """Images of random patterns, one pattern a class, with noise on them; labels in turn."""
    patterns = torch.randn(classes, 3, side, side, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(classes).repeat(shots)
    noise = torch.randn(len(labels), 3, side, side, generator=torch.Generator().manual_seed(seed))
    return Pictures(patterns[labels] + 0.5 * noise, labels)


def uneven_pictures(counts: Sequence[int], seed: int = 0, side: int = 32) -> Pictures:
    """As `make_pictures`, but with so many images of each class, in mixed order: means over classes and over images,
    and sums by class, are then all different."""
    pictures = make_pictures(len(counts), max(counts), seed, side)
    turn = torch.arange(len(pictures.labels)) // len(counts)
    kept = turn < torch.tensor(counts)[pictures.labels]
    return Pictures(pictures.images[kept], pictures.labels[kept])


@pytest.fixture
def pictures() -> Pictures:
    return make_pictures(len(NAMES), 3)


@pytest.fixture
def uneven() -> Pictures:
    """2, 5, 1 and 3 images of the four classes."""
    return uneven_pictures((2, 5, 1, 3))
