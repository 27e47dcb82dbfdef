"""What a method is: learned tensors around a frozen CLIP, and the few functions that they change.

A method overrides what it needs of these. In brackets what the default is.

    build                 makes the learned tensors                                         (none)
    text_features         unit text features of the classes, (C, D)                         (none: MethodError)
    logit_weights         what `logits` multiplies image features with                      (text_features)
    image_prompts         visual tokens that join an image's                                (none)
    encode_images         image features, not normalised; encoded_size is their number      (CLIP's with image_prompts)
    image_features        unit image features, (B, D)                                       (those of encode)
    logits                class scores, (B, C)                                              (scaled cosines)
    losses                loss terms of a batch and their total                             (cross-entropy)
    before_fit            once before the first step                                        (nothing)
    after_epoch           after each epoch; running_state is what it carries to the next    (nothing)
    after_fit             once after the last step                                          (nothing)
    make_room             before loading tensors whose size the images decided              (nothing)

Shape letters are those of `daptune.clip.model`.
"""

from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.backbone import Backbone
from ..clip.model import CLIP
from ..clip.transfer import Transfer
from ..data.loader import Batch, ImageLoader
from ..errors import MethodError
from ..names import check_class_names
from .losses import cross_entropy
from .options import MethodConfig

SupportSet = ImageLoader
"""The labelled images that a method is fitted on; it asks for `evaluation` and `augmented_view`."""


class Method(nn.Module, ABC):
    """Learned tensors, the frozen `backbone` (which is no submodule), class names and options.

    `state_dict()` holds what was learned and nothing else. Learned tensors are float32 on the backbone's device;
    `.to(device)` takes the backbone along. `seed` draws their first values and leaves torch's own generator alone.
    """

    name: ClassVar[str]
    """What a user types."""
    title: ClassVar[str]
    """What the paper calls it."""
    year: ClassVar[int]
    """Year of the paper."""
    config_class: ClassVar[type[MethodConfig]] = MethodConfig
    """Its options, a frozen dataclass."""
    accepts_new_classes: ClassVar[bool] = True
    """False where what is learned never fits other class names; `takes_new_classes` is the answer for some options."""
    sees: ClassVar[str] = "features"
    """How images reach `logits`.

    features         through `encode` alone: images of several methods may go through CLIP's tower together, each with
                     its `image_prompts`, and `logits` takes the features (B, D) that come out
    fixed features   so they reach `losses` too, and nothing in `encode` is learned: an image is encoded once a view
    images           in a way of its own. A class that overrides `encode_images`, `encode`, `image_features` or
                     `logits` is such a one, unless it says otherwise anew.
    """
    trains_on_features: ClassVar[bool] = False
    """Whether training may take the features of `encode` in place of images; follows from `sees`."""
    shares_image_tower: ClassVar[bool] = True
    """Whether `logits` takes the features (B, D) of CLIP's tower with `image_prompts` in place of images; follows from
    `sees`, where `encode` is that tower."""
    whole_batch: ClassVar[bool] = False
    """Whether `losses` couples the images of a batch, so that processes that train together must not share it out."""
    default_lr: ClassVar[float | None] = None
    """Learning rate of AdamW that suits it where nobody gives one; None: that of `TrainConfig`."""
    uses_validation: ClassVar[bool] = False
    """Whether `before_fit` or `after_fit` looks at validation images, where there are any."""

    config: MethodConfig
    started_from: str | None = None
    """sha256 of the adapter's tensors that learning starts from, or None: from the first values."""
    batch_accuracy: Tensor | None = None
    """Share of the last training batch that was classified right, a scalar, for whoever reports progress."""

    def __init__(
        self,
        backbone: Backbone,
        class_names: Sequence[str],
        config: MethodConfig | None = None,
        *,
        seed: int = 1,
    ) -> None:
        super().__init__()
        config = self.config_class() if config is None else config
        if not isinstance(config, self.config_class):
            raise MethodError(
                f"{self.name} expected {self.config_class.__name__} options, found {type(config).__name__}: "
                f"make them with METHODS[{self.name!r}].config_class(...)."
            )
        self.backbone = backbone
        self.class_names = check_class_names(class_names, alike="logged", error=MethodError)
        self.config = config
        self.seed = seed
        self._cached: tuple[list[Tensor], Tensor] | None = None
        self._shared: list[Tensor] | None = None
        self.build(torch.Generator().manual_seed(seed))

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        own = vars(cls)
        if "sees" not in own:
            if own.get("trains_on_features"):  # what was said before there was `sees`
                cls.sees = "fixed features"
            elif own.get("shares_image_tower"):
                cls.sees = "features"
            elif own.keys() & {"encode_images", "encode", "image_features", "logits"}:
                cls.sees = "images"
        if "trains_on_features" not in own:
            cls.trains_on_features = cls.sees == "fixed features"
        if "shares_image_tower" not in own:
            plain = cls.encode is Method.encode and cls.encode_images is Method.encode_images
            cls.shares_image_tower = plain and cls.sees != "images"

    def build(self, generator: torch.Generator) -> None:
        """Make the learned tensors (drawn on the CPU, so that every device starts from the same values)."""

    def text_features(self) -> Tensor:
        """Unit text features of the classes, w: (C, D). Raises `MethodError` where a method has none."""
        raise MethodError(
            f"{self.name} has no text features: ask a method that uses the text tower, such as dapt or tip_adapter."
        )

    def image_prompts(self) -> Tensor | None:
        """Visual tokens that join an image's behind ln_pre, layer by layer: (J, P, W). None: CLIP as it is."""
        return None

    def image_features(self, images: Tensor) -> Tensor:
        """Unit image features, z: (B, 3, R, R) -> (B, D). By default those of `encode`."""
        return F.normalize(self.encode(images), dim=-1)

    def encode(self, images: Tensor) -> Tensor:
        """What `encode_images` makes of images (B, 3, R, R); features that it made before are taken as they are.

        So `logits` and `losses` take both, and training may encode each image once. Only images have four dimensions.
        """
        return self.encode_images(images) if images.dim() == 4 else images

    def encode_images(self, images: Tensor) -> Tensor:
        """Features with `image_prompts`, not normalised: (B, 3, R, R) -> (B, D)."""
        return self.clip.encode_image(images, self.image_prompts())

    def logits(self, images: Tensor) -> Tensor:
        """exp(logit_scale) z w^T: (B, 3, R, R) -> (B, C)."""
        return self.scale * self.image_features(images) @ self.class_text_features().mT

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Raw terms and their weighted "total", scalars: images (B, 3, R, R), labels (B,). By default cross-entropy."""
        loss = self.cross_entropy(self.logits(images), labels)
        return {"cross_entropy": loss, "total": loss}

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of a batch, logits (B, C), labels (B,); leaves its share of right ones in
        `batch_accuracy`."""
        self.batch_accuracy = (logits.detach().argmax(-1) == labels).float().mean()
        return cross_entropy(logits, labels)

    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        """Once before the first step, with the images that may be learned from. Closed-form methods end here."""

    def after_epoch(self, epoch: int, epochs: int) -> None:
        """Once after the steps of each epoch, from 1 to `epochs`, before it is validated: for averages over epochs."""

    def running_state(self) -> dict[str, Tensor]:
        """What `after_epoch` carries from epoch to epoch; checkpoints hold it, `state_dict` (what is saved) does not.

        The tensors themselves: a run that is resumed writes into them.
        """
        return {}

    def after_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        """Once after the last step, in evaluation mode, for what is settled when all else is learned."""

    def make_room(self, state_dict: Mapping[str, Tensor]) -> None:
        """Before loading: resize the learned tensors whose size the images decided, where `state_dict` has others."""

    def forward(self, images: Tensor) -> Tensor:
        """The same as `logits`."""
        return self.logits(images)

    @property
    def clip(self) -> CLIP:
        """The frozen two-tower model."""
        return self.backbone.clip

    @property
    def device(self) -> torch.device:
        """Where it computes: its learned tensors lie beside the backbone's."""
        return self.clip.device

    @property
    def scale(self) -> Tensor:
        """CLIP's exp(logit_scale), a frozen scalar (100 for OpenAI's weights)."""
        return self.clip.logit_scale.exp()

    @property
    def encoded_size(self) -> int:
        """How many numbers `encode` makes of an image."""
        return self.clip.config.embed_dim

    @property
    def trainable(self) -> bool:
        """Whether there is anything for gradient steps; False for closed-form methods."""
        return any(p.requires_grad for p in self.parameters())

    @property
    def parameter_count(self) -> int:
        """How many numbers are learned."""
        return sum(tensor.numel() for tensor in self.state_dict().values())

    def logit_weights(self) -> Tensor:
        """What `logits` multiplies image features with, (C, D): `text_features`, where a method has no other."""
        return self.text_features()

    def class_text_features(self) -> Tensor:
        """`logit_weights`, (C, D), once for as long as nothing is learned: in eval mode without gradients.

        What `losses` reads, so that the batches of one step share them (`text_features_once`).
        """
        if self._shared is not None:
            if not self._shared:
                weights = self.logit_weights()
                self._shared += [weights, weights.detach().requires_grad_(weights.requires_grad)]
            return self._shared[1]
        if self.training or torch.is_grad_enabled():
            return self.logit_weights()
        learned = list(self.state_dict().values())
        # values are compared: version counters miss the steps of fused optimizers, and learned tensors are small
        if self._cached is None or not all(map(torch.equal, self._cached[0], learned)):
            self._cached = [tensor.clone() for tensor in learned], self.logit_weights()
        return self._cached[1]

    @contextmanager
    def text_features_once(self) -> Iterator[None]:
        """Inside, the losses of several batches share one forward of the text tower, and at the end one backward.

        Exact, because nothing is learned between them: each batch's backward adds to the gradient of the class
        features, and the sum goes back through the tower when the last one is done.
        """
        self._shared = []
        try:
            yield
            if self._shared and (gradient := self._shared[1].grad) is not None:
                self._shared[0].backward(gradient)
        finally:
            self._shared = None

    @classmethod
    def takes_new_classes(cls, config: MethodConfig) -> bool:
        """Whether what is learned with these options fits other class names."""
        return cls.accepts_new_classes and not config.per_class

    def with_classes(self, class_names: Sequence[str]) -> Self:
        """A new method of the same kind with the same learned tensors and other class names.

        Raises `MethodError` where what was learned belongs to the old classes one by one (`takes_new_classes`), and for
        names that CLIP cannot tell apart, but for those that a published list has twice (`check_class_names`).
        """
        if not self.takes_new_classes(self.config):
            raise MethodError(
                f"{self.name} learned a tensor for each of its {len(self.class_names)} classes and cannot take "
                "new class names: fit it again on images of the new classes."
            )
        names = check_class_names(class_names, alike="marked", error=MethodError)
        other = type(self)(self.backbone, names, self.config.for_new_classes(), seed=self.seed)
        other.load_state_dict(self.state_dict())
        return other.train(self.training)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load learned tensors; a missing, unknown or misshapen one is a `MethodError` with both shapes."""
        self.make_room(state_dict)
        own = self.state_dict()
        for key in sorted({*own, *state_dict} if strict else {*own} & {*state_dict}):
            expected, found = (str(tuple(s[key].shape)) if key in s else "none" for s in (own, state_dict))
            if expected != found:
                raise MethodError(
                    f"{self.name}: tensor {key!r} expected shape {expected}, found {found}: build the method with the "
                    "options, the number of classes and the backbone that it was learned with."
                )
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`; forgets the cached text features."""
        self._cached = None
        return super().train(mode)

    def extra_repr(self) -> str:
        """For `print(method)`."""
        return f"{self.title}: {len(self.class_names)} classes, {self.parameter_count:,} learned numbers"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        probe = fn(torch.empty(0, device=self.clip.device))  # tells where, and to which type, `fn` moves
        if probe.dtype != torch.float32:
            raise MethodError(
                f"{self.name}: learned tensors stay float32, found {probe.dtype}: set the precision of the backbone."
            )
        if probe.device != self.clip.device:
            self.backbone.to(probe.device)
        self._cached = None
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved


@torch.no_grad()
def encode_batches(
    encode: Callable[[Tensor], Tensor], batches: Iterable[Batch], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Features (n, D) and labels (n,) of all batches, on `device`."""
    transfer = Transfer(device)
    parts = [(encode(images), labels) for images, labels in (transfer(*batch) for batch in batches)]
    if not parts:
        raise MethodError("expected labelled images to learn from, found none: give at least one for each class.")
    features, labels = zip(*parts, strict=True)
    return torch.cat(features), torch.cat(labels)
