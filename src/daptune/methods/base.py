"""What a method is: learned tensors around a frozen CLIP, and the few functions that they change.

A method overrides what it needs of `build`, `text_features`, `image_features`, `logits`, `losses`, `before_fit`.
Shape letters are those of `daptune.clip.model`.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.backbone import Backbone
from ..clip.model import CLIP
from ..clip.transfer import Transfer
from ..errors import MethodError
from .losses import cross_entropy
from .options import MethodConfig

Batches = Iterable[tuple[Tensor, Tensor]]  # images (B, 3, R, R), labels (B,)
logger = logging.getLogger("daptune")


class SupportSet(Protocol):
    """The labelled images that a method is fitted on."""

    def evaluation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in table order under the evaluation transform: (B, 3, R, R) float32 and (B,) int64."""

    def augmented_view(self, view: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in table order, augmented as in training; the same `view` gives the same pixels."""


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
    """Whether what was learned fits other class names."""
    trains_on_features: ClassVar[bool] = False
    """Whether `losses` and `logits` see images through `encode` alone, so that an image may be encoded once a view."""
    whole_batch: ClassVar[bool] = False
    """Whether `losses` couples the images of a batch, so that processes that train together must not share it out."""
    default_lr: ClassVar[float | None] = None
    """Learning rate of AdamW that suits it where nobody gives one; None: that of `TrainConfig`."""
    uses_validation: ClassVar[bool] = False
    """Whether `before_fit` or `after_fit` looks at validation images, where there are any."""
    shares_image_tower: ClassVar[bool] = True
    """Whether `logits` sees images through `encode` alone, and `encode` is CLIP's tower with `image_prompts`: images of
    several methods may then go through the tower together, and `logits` takes the features (B, D) that come out. A
    class that overrides `encode`, `image_features` or `logits` has to say so anew; it is False there otherwise."""

    config: MethodConfig
    started_from: str | None = None
    """sha256 of the adapter's tensors that learning starts from, for who keeps account; None: the first values."""
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
        self.class_names = check_class_names(class_names)
        self.config = config
        self.seed = seed
        self._cached: tuple[list[Tensor], Tensor] | None = None
        self._shared: list[Tensor] | None = None
        self.build(torch.Generator().manual_seed(seed))

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        own = vars(cls)
        if "shares_image_tower" not in own and own.keys() & {"encode", "image_features", "logits"}:
            cls.shares_image_tower = False

    def build(self, generator: torch.Generator) -> None:
        """Make the learned tensors (drawn on the CPU, so that every device starts from the same values)."""

    @abstractmethod
    def text_features(self) -> Tensor:
        """Unit text features of the classes, w: (C, D)."""

    def image_prompts(self) -> Tensor | None:
        """Visual tokens that join an image's behind ln_pre, layer by layer: (J, P, W). None: CLIP as it is."""
        return None

    def image_features(self, images: Tensor) -> Tensor:
        """Unit image features, z: (B, 3, R, R) -> (B, D). By default those of `encode`."""
        return F.normalize(self.encode(images), dim=-1)

    def encode(self, images: Tensor) -> Tensor:
        """Features with `image_prompts`, not normalised: (B, 3, R, R) -> (B, D); those (B, D) that it made stay."""
        return images if images.dim() == 2 else self.clip.encode_image(images, self.image_prompts())

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
        """Numbers that `encode` makes of an image."""
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

    def with_classes(self, class_names: Sequence[str]) -> Self:
        """A new method of the same kind with the same learned tensors and other class names.

        Raises `MethodError` where what was learned belongs to the old classes one by one.
        """
        if not self.accepts_new_classes or self.config.per_class:
            raise MethodError(
                f"{self.name} learned a tensor for each of its {len(self.class_names)} classes and cannot take "
                "new class names: fit it again on images of the new classes."
            )
        other = type(self)(self.backbone, class_names, self.config.for_new_classes(), seed=self.seed)
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
def encode_batches(encode: Callable[[Tensor], Tensor], batches: Batches, device: torch.device) -> tuple[Tensor, Tensor]:
    """Features (n, D) and labels (n,) of all batches, on `device`."""
    transfer = Transfer(device)
    parts = [(encode(images), labels) for images, labels in (transfer(*batch) for batch in batches)]
    if not parts:
        raise MethodError("expected labelled images to learn from, found none: give at least one for each class.")
    features, labels = zip(*parts, strict=True)
    return torch.cat(features), torch.cat(labels)


def check_class_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Class names as a tuple; empty, blank or repeated ones are a `MethodError` that names them.

    Names that differ, but not to CLIP (case, "_" for " "), are logged: ImageNet's own list needs such pairs.
    """
    if isinstance(class_names, str):
        raise MethodError(f"class_names: expected a list of names, found the text {class_names!r}: put it in a list.")
    names = tuple(class_names)
    if not names:
        raise MethodError("class_names: expected at least one name, found an empty list.")
    taken: set[str] = set()
    readings: dict[str, str] = {}
    for place, name in enumerate(names):
        if not isinstance(name, str) or not name.replace("_", " ").strip():
            raise MethodError(f"class_names: expected a name at place {place}, found {name!r}: give the class a name.")
        if name in taken:
            raise MethodError(f"class_names: {name!r} is there twice: give each class a name of its own.")
        taken.add(name)
        reading = " ".join(name.replace("_", " ").lower().split())
        if (other := readings.setdefault(reading, name)) != name:
            logger.warning("Class names %r and %r read the same to CLIP: it cannot tell the two apart.", other, name)
    return names
