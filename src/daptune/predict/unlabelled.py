"""What unlabelled images teach a fitted classifier: a linear rule that later images are answered with, one by one.

TransCLIP solves for the classes of the unlabelled images, with the labelled ones as support. Its means m and variance v
then say of any image, with the answer p of the method at its temperature T,

    p^lambda exp(x W^T + b), normalised        W = m / (50 v), b = -m W / 2

without the neighbours, which a single image has not. It is added to the ensemble of the method, or to an empty one, as
scores (x W^T + b) T / lambda, and the temperature becomes T / lambda. So the adapter, its file and what is exported
keep their form, and one pass of the image tower still answers.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from daptune.data.loader import ImageLoader
from daptune.data.table import ImageSource
from daptune.errors import DataError, MethodError
from daptune.evaluate import seen_by
from daptune.methods import Method
from daptune.methods.ensemble import Ensemble
from daptune.methods.templates import choose_templates
from daptune.predict.as_set import LEAST, see, solve
from daptune.predict.inputs import image_sources
from daptune.transductive import Labelled

if TYPE_CHECKING:
    from daptune.predict.adapted import AdapterPredictor

_log = logging.getLogger("daptune")


@dataclass(frozen=True)
class Unlabelled:
    """Number of readable images; gamma, the weight of the labelled ones; the temperature of the answers."""

    images: int
    gamma: float
    temperature: float


def unlabelled_sources(method: Method, images: Any) -> list[ImageSource] | None:
    """A list of unlabelled images or those of a folder, None for None; called before the training.

    Raises MethodError for a method whose answers a rule on its image features cannot be added to, and DataError for
    fewer than `LEAST` images and for what is no images.
    """
    if images is None:
        return None
    if method.sigmoids is not None:
        raise MethodError("unlabelled images are of one class each; leave them out, or leave out --multi-label.")
    if method.sees == "images" or method.encoded_size != method.clip.config.embed_dim:
        raise MethodError(
            f"{method.name} cannot learn from unlabelled images, because it answers by more than CLIP's image features;"
            " fit without them and answer to sets: `daptune predict --transductive`."
        )
    try:
        sources = image_sources(images)
    except DataError as error:
        raise DataError(f"unlabelled images: {error}") from None
    if len(sources) < LEAST:
        raise DataError(f"expected {LEAST} or more unlabelled images, found {len(sources)}; give more.")
    return sources


def learn_unlabelled(
    predictor: "AdapterPredictor",
    images: Sequence[ImageSource],
    train: ImageLoader,
    val: ImageLoader | None,
    *,
    judged: bool,
) -> Unlabelled:
    """Add the rule to the ensemble of a fitted method; `val` chooses gamma.

    The ensemble's statistics of known images are of other answers: they are dropped, unless the new answers will be
    `judged` by validation images. Raises DataError for fewer than `LEAST` images that can be read.
    """
    seen, method = see(predictor, images), predictor.method_
    failed = [bad for batch in seen.batches for bad in batch.failed]
    count = len(seen.probabilities)
    if failed:
        _log.warning("%d of %d unlabelled images are left out: %s", len(failed), len(images), failed[0].reason)
    support, held = _labelled(method, train), None if val is None else _labelled(method, val)
    solved = None if count < LEAST else solve(seen, support, held)
    if solved is None:
        raise DataError(f"expected {LEAST} or more unlabelled images that can be read, found {count}; give more")
    found, _ = solved
    temperature = predictor.record_.temperature / found.prior_weight
    weights, bias = (torch.from_numpy(temperature * part).to(method.device) for part in found.rule)
    if method.ensemble is None:
        method.ensemble = Ensemble.empty(len(weights), weights.shape[1], choose_templates()).to(method.device)
    method.ensemble = method.ensemble.plus(weights, bias, known=judged)
    return Unlabelled(count, found.gamma, temperature)


def _labelled(method: Method, images: ImageLoader) -> Labelled:
    seen = seen_by(method, images.evaluation())
    return seen.z.astype(np.float32), seen.labels
