"""Base class of the methods: learned tensors around a frozen CLIP.

A method overrides some of these functions. Defaults are in brackets.

    build                 makes the learned tensors                                         (none)
    text_features         unit text features of the classes, (C, D)                         (none: MethodError)
    logit_weights         class weights that `logits` multiplies image features with        (text_features)
    image_prompts         visual tokens added to those of an image                          (none)
    encode_images         image features, not normalised; encoded_size is their number      (CLIP's with image_prompts)
    visual_projection     what replaces the image tower's projection in image_features      (nothing)
    image_features        unit image features, (B, D)                                       (those of encode)
    logits                class scores, (B, C)                                              (scaled cosines)
    joins_ensemble        whether `answer` may add other sources to `logits`                (if trained on features)
    losses                loss terms of a batch and their total, in the current `stage`     (cross-entropy)
    before_fit            called before the first step                                      (nothing)
    after_epoch           called after each epoch; running_state is its state               (nothing)
    after_fit             called after the last step                                        (nothing)
    make_room             resizes tensors whose size depends on the images, before loading  (nothing)
    support_features      unit features of the labelled images that it holds, and labels    (None)

Shape letters are those of `daptune.clip.model`.
"""

from abc import ABC
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.backbone import Backbone
from ..clip.model import CLIP
from ..data.loader import ImageLoader
from ..errors import MethodError
from ..names import ClassNames, names_by_class
from .ensemble import Ensemble
from .losses import cross_entropy
from .options import MethodConfig
from .sigmoids import Sigmoids

SupportSet = ImageLoader
"""The labelled images that a method is fitted on; methods use `evaluation` and `augmented_view`."""


class Method(nn.Module, ABC):
    """Learned tensors, the frozen `backbone` (not a submodule), class names and options.

    `class_names` are the labels that answers use, (C,). `prompt_names` holds for each class the names that its prompt
    says: the label, or those of a mapping {label: name or names}; features of several are averaged.
    `state_dict()` holds only the learned tensors: float32, on the backbone's device. `.to(device)` also moves the
    backbone. `seed` determines the initial values; torch's global generator is not used.
    """

    name: ClassVar[str]
    """Name on the command line and in files."""
    title: ClassVar[str]
    """Name in the paper."""
    year: ClassVar[int]
    """Year of the paper."""
    config_class: ClassVar[type[MethodConfig]] = MethodConfig
    accepts_new_classes: ClassVar[bool] = True
    """Whether the learned tensors work with other class names; `takes_new_classes` also considers the options."""
    sees: ClassVar[str] = "features"
    """How images reach `logits`.

    features         only through `encode`: the images of several methods may share one pass of CLIP's tower, each with
                     its `image_prompts`; `logits` accepts the resulting features (B, D)
    fixed features   `losses` too; nothing in `encode` is learned, so that each view is encoded once
    images           in another way; the default where `encode(_images)`, `image_features` or `logits` are overridden
    """
    trains_on_features: ClassVar[bool] = False
    """Whether training may pass the features of `encode` instead of images; follows from `sees`."""
    shares_image_tower: ClassVar[bool] = True
    """Whether `logits` accepts the features (B, D) of CLIP's tower with `image_prompts`; from `sees` and `encode`."""
    text_first: ClassVar[bool] = False
    """Whether by default the text prompt learns alone first, before all learn together (`daptune.train.text_first`)."""
    whole_batch: ClassVar[bool] = False
    """Whether `losses` couples the images of a batch, so that distributed training must not split it."""
    default_lr: ClassVar[float | None] = None
    """Default learning rate with AdamW; None: that of `TrainConfig`."""
    stages: tuple[float, ...] = ()
    """Shares of the steps after which another stage of training begins, where parts of a method learn in turn."""
    stage: int = 0
    """The stage of the next step, from 0. Training sets it from the step, so that it is in no file."""
    uses_validation: ClassVar[bool] = False
    """Whether `before_fit` or `after_fit` uses validation images, if present."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What the towers of its backbone must have, of the constants of `daptune.clip.towers`."""
    weighs_classes: ClassVar[bool] = False
    """Whether `before_fit` heeds `class_weight`; gradient steps always do, in `cross_entropy`."""
    multi_label: ClassVar[bool] = True
    """Whether the loss takes indicator matrices (B, C); False by default with own `losses` or `before_fit`."""

    config: MethodConfig
    names: dict[str, tuple[str, ...]]
    """Class -> the names that its prompt says; another method of the same classes is built with it."""
    ensemble: Ensemble | None
    """What `answer` adds to `logits`; None: nothing. Not part of `state_dict`."""
    sigmoids: Sigmoids | None
    """What judges each class by itself; None: an image has one class."""
    class_weight: Tensor | None = None
    """Weights of the classes in the loss, (C,), on the method's device; None: 1. Set it before the fit; not saved."""
    started_from: str | None = None
    """SHA-256 of the adapter that training started from; None without one. Recorded in adapter.json."""
    batch_accuracy: Tensor | None = None
    """Accuracy on the last training batch, a scalar, for progress reports."""

    def __init__(
        self, backbone: Backbone, class_names: ClassNames, config: MethodConfig | None = None, *, seed: int = 1
    ) -> None:
        super().__init__()
        config = self.config_class() if config is None else config
        if not isinstance(config, self.config_class):
            raise MethodError(
                f"{self.name} expected {self.config_class.__name__} options, found {type(config).__name__}: "
                f"make them with METHODS[{self.name!r}].config_class(...)."
            )
        self.backbone = backbone
        self.names = names_by_class(class_names, alike="logged", error=MethodError)
        self.class_names, self.prompt_names = tuple(self.names), tuple(self.names.values())
        self.config = config
        if lacking := self.lacking(backbone.clip, config):
            raise MethodError(f"`{self.name}` needs {lacking[0]}; {backbone.name} has none: use coop or tip_adapter_f.")
        self.seed = seed
        self.register_module("ensemble", None)
        self.register_module("sigmoids", None)
        self._cached: tuple[list[Tensor], Tensor] | None = None
        self._shared: list[Tensor] | None = None
        self.build(torch.Generator().manual_seed(seed))

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        own = vars(cls)
        if "sees" not in own:
            if own.get("trains_on_features"):  # plug-ins written before `sees` existed
                cls.sees = "fixed features"
            elif own.get("shares_image_tower"):
                cls.sees = "features"
            elif own.keys() & {"encode_images", "encode", "image_features", "logits"}:
                cls.sees = "images"
        if own.keys() & {"losses", "before_fit"} and "multi_label" not in own:
            cls.multi_label = False
        if "trains_on_features" not in own:
            cls.trains_on_features = cls.sees == "fixed features"
        if "shares_image_tower" not in own:
            plain = cls.encode is Method.encode and cls.encode_images is Method.encode_images
            cls.shares_image_tower = plain and cls.sees != "images"

    def build(self, generator: torch.Generator) -> None:
        """Make the learned tensors. Draw them on the CPU, so that they are the same on every device."""

    def text_features(self) -> Tensor:
        """Unit text features of the classes, w: (C, D). Raises `MethodError` if the method has none."""
        raise MethodError(f"{self.name} has no text features: use one with a text tower, such as dapt or tip_adapter.")

    def image_prompts(self) -> Tensor | None:
        """Visual tokens added to those of an image after ln_pre, for each layer: (J, P, W). None: zero-shot CLIP."""
        return None

    @property
    def pools_prompts(self) -> bool:
        """Whether the pooling head of a tower that has one (SigLIP) also pools over `image_prompts`."""
        return True

    def visual_projection(self) -> Tensor | None:
        """What `image_features` have in place of the image tower's projection, (W, D); exported with class weights."""
        return None

    def image_features(self, images: Tensor) -> Tensor:
        """Unit image features, z: (B, 3, R, R) -> (B, D)."""
        return F.normalize(self.encode(images), dim=-1)

    def encode(self, images: Tensor) -> Tensor:
        """`encode_images` of images (B, 3, R, R). Inputs that are already features (B, D) are returned unchanged."""
        return self.encode_images(images) if images.dim() == 4 else images

    def encode_images(self, images: Tensor) -> Tensor:
        """Features with `image_prompts`, not normalised: (B, 3, R, R) -> (B, D)."""
        return self.clip.encode_image(images, self.image_prompts(), pool_prompts=self.pools_prompts)

    def logits(self, images: Tensor) -> Tensor:
        """`scaled` cosines of `image_features` and `class_text_features`: (B, 3, R, R) -> (B, C)."""
        return self.scaled(self.image_features(images), self.class_text_features())

    def scaled(self, z: Tensor, w: Tensor) -> Tensor:
        """exp(logit_scale) z w^T, plus the backbone's logit_bias if it has one: (B, D), (C, D) -> (B, C)."""
        logits = self.scale * z @ w.mT
        return logits if self.clip.logit_bias is None else logits + self.clip.logit_bias

    def match_probabilities(self, images: Tensor) -> Tensor:
        """sigmoid(exp(logit_scale) z w^T + logit_bias), each class by itself: (B, 3, R, R) -> (B, C).

        Raises MethodError for a backbone that was not trained by sigmoids.
        """
        if self.clip.logit_bias is None:
            why = "has no logit_bias, so its scores do not say whether a text fits an image by itself"
            raise MethodError(f"{self.backbone.name} {why}: take a SigLIP such as ViT-B-16-SigLIP2/webli.")
        return self.scaled(self.image_features(images), self.text_features()).sigmoid()

    def answer(self, images: Tensor) -> Tensor:
        """Scores for predictions, of `logits`, `ensemble` or `sigmoids`: (B, 3, R, R) or features -> (B, C)."""
        if self.ensemble is None:
            return self.logits(images) if self.sigmoids is None else self.sigmoids(self.logits(images).float())
        features = self.encode(images)
        return self.ensemble(F.normalize(features.float(), dim=-1), self.logits(features).float())

    def probabilities(self, scores: Tensor, temperature: float = 1.0) -> Tensor:
        """Of the scores of `answer`, softmax(scores / temperature), or each class's sigmoid: (B, C) -> (B, C)."""
        scores = scores.float() / temperature
        return scores.softmax(dim=-1) if self.sigmoids is None else scores.sigmoid()

    def answer_with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`answer` (B, C) and `image_features` (B, D) of images, in one pass of the image tower if `sees` allows it."""
        seen = images if self.sees == "images" else self.encode(images)
        return self.answer(seen), self.image_features(seen)

    @property
    def joins_ensemble(self) -> bool:
        """Whether `answer` may add hand-written prompts and support images: `logits` read CLIP's features only."""
        return self.trainable and self.sees != "images" and self.encoded_size == self.clip.config.embed_dim

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Raw terms and their weighted "total", scalars: images (B, 3, R, R), labels (B,), or (B, C) with sigmoids."""
        loss = self.cross_entropy(self.logits(images), labels)
        return {"cross_entropy": loss, "total": loss}

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy, weighted by class; stores `batch_accuracy`. With `sigmoids`, the binary one of (B, C)."""
        if self.sigmoids is not None:
            return self.sigmoids.loss(logits, labels, self.class_weight)
        self.batch_accuracy = (logits.detach().argmax(-1) == labels).float().mean()
        return cross_entropy(logits, labels, self.class_weight)

    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        """Called before the first step. Closed-form methods are fitted here.

        With `sees` "fixed features", batches may be features (B, D) of `encode` instead of images.
        """

    def after_epoch(self, epoch: int, epochs: int) -> None:
        """Called after the steps of each epoch, 1 to `epochs`, before validation, e.g. to average over epochs."""

    def running_state(self) -> dict[str, Tensor]:
        """State of `after_epoch`: saved in checkpoints, not in `state_dict`. Resuming writes into these tensors."""
        return {}

    def after_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        """Called after the last step, in evaluation mode, e.g. for a final search."""

    def for_own_classes(self, learned: Mapping[str, Tensor], names: Sequence[Sequence[str]]) -> Mapping[str, Tensor]:
        """What a method learned whose `prompt_names` were `names`, as it is for the classes of this one."""
        return learned

    def make_room(self, state_dict: Mapping[str, Tensor]) -> None:
        """Called before loading: resize learned tensors whose size depends on the images to those of `state_dict`."""

    def support_features(self) -> tuple[Tensor, Tensor] | None:
        """`image_features` (S, D) of the labelled images and their labels (S,), if the method holds them."""
        return None

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images)

    @property
    def clip(self) -> CLIP:
        return self.backbone.clip

    @property
    def device(self) -> torch.device:
        return self.clip.device

    @property
    def scale(self) -> Tensor:
        """CLIP's exp(logit_scale), a frozen scalar (100 for OpenAI's weights)."""
        return self.clip.logit_scale.exp()

    @property
    def encoded_size(self) -> int:
        """Number of values that `encode` returns per image."""
        return self.clip.config.embed_dim

    @property
    def encodes_plainly(self) -> bool:
        """Whether `encode` gives CLIP's own features with nothing learned in them: one pass serves all such methods."""
        own = type(self)
        plain = own.encode is Method.encode and own.encode_images is Method.encode_images
        return plain and self.sees != "images" and self.image_prompts() is None

    @property
    def trainable(self) -> bool:
        """Whether gradient steps train it; False for closed-form methods."""
        return any(p.requires_grad for p in self.parameters())

    @property
    def parameter_count(self) -> int:
        return sum(tensor.numel() for tensor in self.state_dict().values())

    def logit_weights(self) -> Tensor:
        """Class weights that `logits` multiplies image features with, (C, D); by default `text_features`."""
        return self.text_features()

    def class_text_features(self) -> Tensor:
        """`logit_weights`, (C, D), cached in eval mode without gradients and shared within `text_features_once`."""
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
        """Inside, the losses of several batches share one forward and one backward pass of the text tower.

        Exact: the gradients of the class features are added up, and their sum goes through the tower at the end.
        """
        self._shared = []
        try:
            yield
            if self._shared and (gradient := self._shared[1].grad) is not None:
                self._shared[0].backward(gradient)
        finally:
            self._shared = None

    @classmethod
    def needs_with(cls, config: MethodConfig) -> frozenset[str]:
        """What of `needs` remains with these options."""
        return cls.needs

    @classmethod
    def lacking(cls, clip: CLIP, config: MethodConfig) -> list[str]:
        """What the method needs with these options and the towers do not have; it runs if that is nothing."""
        return sorted(cls.needs_with(config) - clip.has)

    @classmethod
    def takes_new_classes(cls, config: MethodConfig) -> bool:
        """Whether the tensors learned with these options work with other class names."""
        return cls.accepts_new_classes and not config.per_class

    @classmethod
    def reads_names(cls) -> bool:
        """Whether class names reach the text tower, so that they must mean something to it."""
        return cls.text_features is not Method.text_features or cls.logit_weights is not Method.logit_weights

    def with_classes(self, class_names: ClassNames) -> Self:
        """A new method with the same learned tensors and other class names, or {label: name or names}.

        Raises `MethodError` if they are specific to the classes (`takes_new_classes`), and for names that do not fit.
        """
        if not self.takes_new_classes(self.config) or self.sigmoids is not None:
            raise MethodError(
                f"{self.name} learned a tensor for each of its {len(self.class_names)} classes and cannot take "
                "new class names: fit it again on images of the new classes."
            )
        names = names_by_class(class_names, alike="marked", error=MethodError)
        other = type(self)(self.backbone, names, self.config.for_new_classes(), seed=self.seed)
        other.load_state_dict(other.for_own_classes(self.state_dict(), self.prompt_names))
        if self.ensemble is not None:
            other.ensemble = self.ensemble.with_classes(self.backbone, other.prompt_names)
        return other.train(self.training)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Raises `MethodError` with both shapes for a missing or unknown tensor, or one of another shape."""
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
        self._cached = None
        return super().train(mode)

    def extra_repr(self) -> str:
        return f"{self.title}: {len(self.class_names)} classes, {self.parameter_count:,} learned parameters"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        probe = fn(torch.empty(0, device=self.clip.device))  # has the device and type that `fn` moves to
        if probe.dtype != torch.float32:
            raise MethodError(
                f"{self.name}: learned tensors stay float32, found {probe.dtype}: set the precision of the backbone."
            )
        if probe.device != self.clip.device:
            self.backbone.to(probe.device)
        self._cached = None
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved
