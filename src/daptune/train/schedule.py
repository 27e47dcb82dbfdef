"""Settings of a training run (`TrainConfig`), learning-rate schedules and optimizers.

Schedules are functions of the step number, without state, so that a resumed run follows them exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from daptune.clip.backbone import Backbone
from daptune.data.augment import Augmentation
from daptune.data.cache import Decoder
from daptune.data.loader import ImageLoader
from daptune.data.sampling import SAMPLINGS, Indices, Sampler, ViewSampler
from daptune.data.table import ImageTable
from daptune.errors import TrainingError, suggest

# Defaults of fields that are None (`TrainConfig.resolved`), for unknown data; those of the papers are a preset.
DEFAULT_STEPS, LEAST_EPOCHS = 200, 10
TEXT_STEPS, JOINT_STEPS = 200, 32  # of methods whose text prompt learns first
EPOCH_SHOTS = 16  # images of a class in an epoch where all labelled images are learned from: then steps do not grow
DEFAULT_LR = {"adamw": 0.01, "adam": 0.01, "sgd": 0.002}
DEFAULT_WEIGHT_DECAY = {"adamw": 0.0, "adam": 0.0, "sgd": 5e-4}

_CHOICES = {
    "sampling": SAMPLINGS,
    "optimizer": ("adamw", "adam", "sgd"),
    "schedule": ("cosine", "cosine_per_epoch", "constant"),
    "select": ("last", "best_val"),
    "memory": ("fast", "low"),
    "augment_on": ("workers", "device"),
}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run, except the method and the data. Raises `TrainingError` for an invalid value.

    epochs             passes over the training images, or draws of `epoch_shots` images of each class; None:
                       DEFAULT_STEPS steps, at least LEAST_EPOCHS epochs
    steps              instead of epochs: about this many steps, in whole epochs
    text_steps         steps of the text prompt alone before these, on features that are computed once (text_first.py);
                       None: TEXT_STEPS, then JOINT_STEPS steps, for methods with `text_first` and neither epochs nor
                       steps given, else 0
    text_views         augmented views of an epoch's images for these steps
    batch_size         images per batch; this and the next six are used to build the loader
    sampling           "shuffled": each image counts once; "balanced": an epoch draws as many images of every class,
                       those of small classes several times; "views": whole batches from all `views` of all images
    epoch_shots        maximum number of images of a class in an epoch, others in the next; None: all
    min_crop           smallest share of an image's area in a random crop; 0.08 in CoOp and DAPT, 1: no crops
    flip               probability of a left-right flip; use 0 if left and right differ (letters, arrows)
    augment_on         where random crops are resized: "workers", by the decoding threads with Pillow; "device", on the
                       method's device in float32, with nearly the same pixels
    views              reuse this many augmented views per image; None: a new one in every epoch. A method with a frozen
                       image tower encodes each of them once
    accumulate         batches per step (gradient accumulation); they share one pass of the text tower
    optimizer          "adamw" (betas 0.9, 0.999), "adam" (the same, but weight decay is added to the gradient) or
                       "sgd" (no Nesterov, no dampening)
    lr                 peak learning rate; None: DEFAULT_LR of the optimizer
    weight_decay       also of prompts, as in CoOp and DAPT; None: DEFAULT_WEIGHT_DECAY of the optimizer
    momentum           of SGD
    eps                of Adam and AdamW: added to the root of the second moment
    schedule           "cosine": by step, after a linear warm-up, anew in each of a method's `stages`;
                       "cosine_per_epoch": as CoOp and DAPT, over the whole run; "constant"
    warmup_epochs      epochs of warm-up; an integer with "cosine_per_epoch"
    warmup_lr          learning rate at the start of the warm-up
    clip_norm          maximum norm of the gradient; None: no clipping
    seed               of the order and augmentation of images and of dropout; at least 0
    select             "last": parameters of the last step; "best_val": of the epoch with the best validation accuracy
    patience           with "best_val": stop after this many epochs without improvement; None: never
    memory             "low": recompute activations of the image tower in the backward pass; the result is the same
    compile            run the towers' blocks through torch.compile, on a GPU as CUDA graphs; equal up to rounding
    checkpoint_seconds time between checkpoints within an epoch; the end of an epoch always has one
    """

    epochs: int | None = None
    steps: int | None = None
    text_steps: int | None = None
    text_views: int = 4
    batch_size: int = 32
    sampling: str = SAMPLINGS[0]
    epoch_shots: int | None = None
    min_crop: float = Augmentation().scale[0]
    flip: float = Augmentation().flip
    augment_on: str = "workers"
    views: int | None = None
    accumulate: int = 1
    optimizer: str = "adamw"
    lr: float | None = None
    weight_decay: float | None = None
    momentum: float = 0.9
    eps: float = 1e-8
    schedule: str = "cosine"
    warmup_epochs: float = 1
    warmup_lr: float = 1e-5
    clip_norm: float | None = None
    seed: int = 1
    select: str = "last"
    patience: int | None = None
    memory: str = "fast"
    compile: bool = False
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise TrainingError(
                    f"{name}={getattr(self, name)!r} is not known.{suggest(str(getattr(self, name)), choices)}"
                )
        if not isinstance(self.compile, bool):
            raise TrainingError(f"compile must be true or false, not {self.compile!r}.")
        for (kind, low, inclusive), names in _LIMITS.items():
            for name in names:
                if getattr(self, name) is not None:
                    _require(name, getattr(self, name), kind, low, inclusive)
        for name in ("min_crop", "flip"):
            if getattr(self, name) > 1:
                raise TrainingError(f"{name} must be a share of at most 1, not {getattr(self, name)!r}.")
        if self.schedule == "cosine_per_epoch" and self.warmup_epochs != int(self.warmup_epochs):
            raise TrainingError(
                f"warmup_epochs={self.warmup_epochs} must be whole with schedule='cosine_per_epoch'; "
                "round it or use schedule='cosine'."
            )
        if self.steps is not None and self.epochs is not None:
            raise TrainingError(f"steps={self.steps} and epochs={self.epochs} set the same; leave one of them out.")
        if self.sampling == "views" and self.views is None:
            raise TrainingError("sampling='views' draws from a fixed number of views; give it, for example views=20.")
        if self.patience is not None and self.select != "best_val":
            raise TrainingError(f"patience={self.patience} needs select='best_val', not {self.select!r}.")

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(scale=(self.min_crop, 1.0), flip=self.flip)

    def sampler(self, labels: Indices, seed: int) -> Sampler | None:
        """What draws the epochs of images with labels (n,); None: whole passes."""
        if self.sampling == "views" and self.views is not None:
            return ViewSampler.over(len(labels), self.views, self.batch_size, seed)
        sampler = Sampler.of(labels, self.sampling, self.epoch_shots, seed)
        return None if sampler.whole else sampler

    def loader(
        self,
        table: ImageTable,
        backbone: Backbone,
        batch_size: int,
        *,
        seed: int,
        training: bool,
        augment: bool | None = None,
        decoder: Decoder | None = None,
    ) -> ImageLoader:
        """Batches of a table, as a run with these settings reads them to train on or to validate on.

        augment: random crops; None: in training.
        """
        return ImageLoader(
            table,
            backbone.preprocess,
            batch_size,
            seed=seed,
            augment=training if augment is None else augment,
            shuffle=training,
            augmentation=self.augmentation,
            augment_on=backbone.device if self.augment_on == "device" else None,
            views=self.views,
            sampler=self.sampler(table.labels, seed) if training else None,
            decoder=decoder,
        )

    def resolved(self, steps_per_epoch: int, adamw_lr: float | None = None, *, text_first: bool = False) -> Self:
        """A copy with defaults filled in, as recorded in results.

        `adamw_lr` is `Method.default_lr`, for Adam too; `text_first` is `Method.text_first`.
        """
        free = self.epochs is None and self.steps is None
        text_steps = TEXT_STEPS if text_first and free else 0
        enough = max(LEAST_EPOCHS, math.ceil(DEFAULT_STEPS / max(1, steps_per_epoch)))
        steps = JOINT_STEPS if free and (text_steps if self.text_steps is None else self.text_steps) else self.steps
        if steps is not None:
            enough = max(1, round(steps / max(1, steps_per_epoch)))
        default_lr = adamw_lr if adamw_lr is not None and self.optimizer != "sgd" else DEFAULT_LR[self.optimizer]
        default_decay = DEFAULT_WEIGHT_DECAY[self.optimizer]
        defaults: dict[str, Any] = {
            "epochs": enough, "lr": default_lr, "weight_decay": default_decay, "text_steps": text_steps
        }  # fmt: skip
        filled = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return replace(self, steps=None, **filled)


# (type, lowest value, whether the lowest itself is allowed) -> fields
_LIMITS: dict[tuple[type, float, bool], tuple[str, ...]] = {
    (int, 1, True): ("epochs", "steps", "batch_size", "epoch_shots", "accumulate", "patience", "views", "text_views"),
    (int, 0, True): ("seed", "text_steps"),
    (float, 0, False): ("lr", "clip_norm", "min_crop", "eps"),
    (float, 0, True): ("weight_decay", "momentum", "warmup_epochs", "warmup_lr", "checkpoint_seconds", "flip"),
}


def _require(name: str, value: Any, kind: type, low: float, inclusive: bool) -> None:
    numeric = isinstance(value, int) or (kind is float and isinstance(value, float))
    fits = numeric and not isinstance(value, bool) and math.isfinite(value)
    if not fits or value < low or (value == low and not inclusive):
        word = "a whole number" if kind is int else "a number"
        bound = f"at least {low:g}" if inclusive else f"above {low:g}"
        raise TrainingError(f"{name} must be {word} {bound}, not {value!r}.")


def stage_of(step: int, total: int, shares: Sequence[float]) -> tuple[int, range]:
    """The stage of a step, from 0, and the steps of that stage, where others begin after `shares` of the `total`."""
    bounds = [0, *(int(share * total) for share in shares), total]
    stage = sum(step >= bound for bound in bounds[1:-1])
    return stage, range(bounds[stage], bounds[stage + 1])


def learning_rate(
    config: TrainConfig, step: int, steps_per_epoch: int, total: int | None = None, first: int = 0
) -> float:
    """Learning rate of a step, counted from 0 over the whole run, with peak config.lr. `config` is resolved.

    `total` and `first` are of its stage: the number of steps and the first; by default, those of the run.

    "cosine_per_epoch", with w warm-up epochs and T epochs, in epoch e: warmup_lr while e < w, then
    peak (1 + cos(pi (e - w) / T)) / 2. The period is T, not T - w, so that it never reaches 0, as in Dassl's
    CosineAnnealingLR(T_max=MAX_EPOCH) inside its ConstantWarmupScheduler (dassl/optim/lr_scheduler.py).

    "cosine", with w warm-up steps of S, at most S / 10: linear from warmup_lr to peak, then
    peak (1 + cos(pi (s - w) / (S - w))) / 2.
    """
    top, epochs = float(config.lr or 0.0), int(config.epochs or 0)
    if config.schedule == "constant":
        return top
    if config.schedule == "cosine_per_epoch":
        epoch, warmup = step // steps_per_epoch, int(config.warmup_epochs)
        if epoch < warmup:
            return config.warmup_lr
        return top * (1 + math.cos(math.pi * (epoch - warmup) / epochs)) / 2
    total, step = epochs * steps_per_epoch if total is None else total, step - first
    # at most a tenth of the run: a run hardly longer than its warm-up would not learn
    rise = min(round(config.warmup_epochs * steps_per_epoch), total // 10)
    if step < rise:
        return config.warmup_lr + (top - config.warmup_lr) * step / rise
    return top * (1 + math.cos(math.pi * (step - rise) / (total - rise))) / 2


def build_optimizer(method: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer over the parameters of `method` that require a gradient. `config` is resolved."""
    learned = [p for p in method.parameters() if p.requires_grad]
    lr, decay = float(config.lr or 0.0), float(config.weight_decay or 0.0)
    if config.optimizer == "sgd":
        return torch.optim.SGD(learned, lr=lr, momentum=config.momentum, weight_decay=decay)
    adam = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return adam(learned, lr=lr, weight_decay=decay, eps=config.eps)
