"""The first stage of learning text and visual prompts together: the text prompt alone, on features computed once.

Most steps of joint training run the image tower forward and back to move the text prompt, which needs no gradient of
that tower. So the text prompt first takes `text_steps` steps on the features of `text_views` augmented views of an
epoch's images, with the visual prompts at their initial values; then both learn together in few steps (`fit_method`).
docs/time_to_accuracy.md has what it is worth.
"""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from daptune.clip.transfer import Transfer
from daptune.data.augment import epoch_order
from daptune.data.loader import ImageLoader
from daptune.errors import Interrupted, TrainingError
from daptune.methods.base import Method
from daptune.train.history import Progress
from daptune.train.schedule import TrainConfig, build_optimizer, learning_rate
from daptune.train.stopping import StopSignals


def learn_text_first(
    method: Method,
    train: ImageLoader,
    config: TrainConfig,
    progress: Callable[[Progress], None] | None,
    signals: StopSignals,
) -> None:
    """`config.text_steps` gradient steps of what in `method.losses` learns from image features; `config` is resolved.

    The order of images depends on the seed alone. progress: told after each step, as epoch 0.
    Raises `Interrupted`, with nothing kept, and `TrainingError` for a loss that is not finite and for a method without
    `text_first`.
    """
    if not method.text_first:
        raise TrainingError(f"{method.name} does not learn its text prompt first; leave out text_steps.")
    with signals:
        features, labels = _encoded(method, train, config.text_views, lambda: _stop(signals))
        _descend(method, features, labels, config, progress, lambda: _stop(signals))


def _descend(
    method: Method,
    features: Tensor,
    labels: Tensor,
    config: TrainConfig,
    progress: Callable[[Progress], None] | None,
    pause: Callable[[], None],
) -> None:
    """The steps on features (n, D), not normalised, and labels (n,); `pause` is called after each and may raise."""
    optimizer, transfer = build_optimizer(method, config), Transfer(method.device)
    size, total = config.batch_size * config.accumulate, int(config.text_steps or 0)
    per_pass = max(1, len(labels) // size)
    began = time.monotonic()
    method.train()
    for step in range(total):
        place = step % per_pass
        if place == 0:
            order = torch.from_numpy(epoch_order(len(labels), config.seed, step // per_pass))
        rows = order[place * size : (place + 1) * size]
        rate = learning_rate(config, step, per_pass, total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        terms = method.losses(*transfer(features[rows], labels[rows]))
        terms["total"].backward()
        optimizer.step()
        values = {name: float(value.detach()) for name, value in terms.items()}
        if not math.isfinite(values["total"]):
            raise TrainingError(
                f"Training stopped at step {step + 1} of the text prompt's {total}: its loss is not finite at "
                f"learning rate {rate:g}. Use a lower --lr (try {float(config.lr or 0.0) / 10:g})."
            )
        if progress is not None:
            accuracy = None if method.batch_accuracy is None else float(method.batch_accuracy)
            left = (time.monotonic() - began) / (step + 1) * (total - step - 1)
            progress(Progress(0, int(config.epochs or 0), step + 1, total, values, accuracy, None, rate, left))
        pause()


@torch.no_grad()
def _encoded(method: Method, train: ImageLoader, views: int, pause: Callable[[], None]) -> tuple[Tensor, Tensor]:
    """Features (n, D), not normalised, of the images of the first `views` epochs, and labels (n,)."""
    method.eval()
    transfer, parts = Transfer(method.device), []
    for epoch in range(views):
        for images, labels in train.epoch(epoch):
            parts.append((method.encode(*transfer(images)).float().cpu(), labels.cpu()))
            pause()
    features, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return features, labels


def _stop(signals: StopSignals) -> None:
    if signals.asked:
        raise Interrupted("Training was stopped before the first joint step; nothing is saved. Start it again.")
