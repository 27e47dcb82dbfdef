"""Predictions of a method on labelled images, and the zero-shot classifier to compare them with.

The one place where accuracy is measured: training, the classifier, the command line, `bench` and `report` use it.
n images, C classes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from daptune.calibration import Calibration, calibrate, scaled
from daptune.clip.backbone import Backbone
from daptune.clip.pooling import pool_names
from daptune.clip.transfer import Transfer
from daptune.data.cache import Decoder
from daptune.data.loader import ImageLoader
from daptune.data.table import ImageTable
from daptune.errors import DataError, MethodError
from daptune.measured import Measured, Presence
from daptune.methods import Method, get_method, make_config
from daptune.methods.ensemble import Seen, fit_ensemble
from daptune.methods.sigmoids import THRESHOLD, judge_by_itself
from daptune.methods.templates import check_length, choose_templates, fill
from daptune.metrics import best_thresholds
from daptune.names import ClassNames

BATCH = 64
"""Default number of images per batch."""


def evaluate(
    method: Method, loader: ImageLoader, *, temperature: float = 1.0, after_batch: Callable[[], object] = int
) -> Measured:
    """Predict every image of `loader`, without augmentation and without gradients: softmax(logits / temperature).

    The method's mode (training or evaluation) is restored; `after_batch` is called after each batch.
    Raises DataError if there are no images.
    """
    return _answers({method.name: (method, temperature)}, loader, after_batch)[method.name]


def measure(
    method: Method,
    table: ImageTable,
    *,
    temperature: float = 1.0,
    batch_size: int = BATCH,
    decoder: Decoder | None = None,
    after_batch: Callable[[], object] = int,
) -> Measured:
    """`evaluate` on the images of a table, in its order; `decoder` may already hold them."""
    found = measure_beside(
        method, method, table, temperature=temperature, batch_size=batch_size, decoder=decoder, after_batch=after_batch
    )
    return found[method.name]


def measure_beside(
    baseline: Method,
    method: Method,
    table: ImageTable,
    *,
    temperature: float = 1.0,
    batch_size: int = BATCH,
    decoder: Decoder | None = None,
    after_batch: Callable[[], object] = int,
) -> dict[str, Measured]:
    """`measure` for a method and its baseline in one pass over the images: by name, the baseline first.

    They share a backbone; `temperature` is the method's. A method that is its own baseline appears once. With an
    ensemble, the learned prompts alone stand between the two, as "NAME alone".
    """
    pairs = {baseline.name: (baseline, 1.0)} | {method.name: (method, temperature)}
    if not len(table):
        raise DataError("expected images to measure on, found none.")
    once = Decoder(0) if decoder is None else decoder  # a single pass need not keep images
    loader = ImageLoader(table, method.backbone.preprocess, batch_size, drop_last=False, decoder=once)
    return _answers(pairs, loader, after_batch)


def _answers(
    methods: Mapping[str, tuple[Method, float]], loader: ImageLoader, after_batch: Callable[[], object]
) -> dict[str, Measured]:
    """Predictions of each (method, temperature), and of an ensemble's method alone; a batch is read once for all."""
    transfer = Transfer(next(iter(methods.values()))[0].device)
    probabilities: dict[str, list[torch.Tensor]] = {}
    known: dict[str, list[NDArray[np.float64]]] = {}
    labels = []
    modes = {method: method.training for method, _ in methods.values()}
    for method in modes:
        method.eval()
    try:
        with torch.no_grad():
            for batch, truth in loader.evaluation():
                (images,) = transfer(batch)
                for name, (method, temperature) in methods.items():
                    seen = images if method.ensemble is None else method.encode(images)
                    if method.ensemble is not None:
                        alone = method.probabilities(method.logits(seen))
                        probabilities.setdefault(f"{name} alone", []).append(alone.cpu())
                        if (values := method.ensemble.known(seen)) is not None:
                            known.setdefault(name, []).append(values)
                    own = method.probabilities(method.answer(seen), temperature)  # (B, C)
                    probabilities.setdefault(name, []).append(own.cpu())
                labels.append(truth)
                after_batch()
    finally:
        for method, mode in modes.items():
            method.train(mode)
    if not labels:
        raise DataError("There are no images to measure on; give at least one.")
    right = torch.cat(labels).cpu().numpy()
    several = {name: m.sigmoids.thresholds.cpu().numpy() for name, (m, _) in methods.items() if m.sigmoids is not None}
    of_known = {name: method.ensemble.mix.truth for name, (method, _) in methods.items() if method.ensemble is not None}
    return {
        name: Presence(torch.cat(found).numpy(), right, thresholds=several[name])
        if name in several
        else Measured(
            torch.cat(found).numpy(),
            right,
            np.concatenate(known[name]) if name in known else None,
            of_known.get(name, ()),
        )
        for name, found in probabilities.items()
    }


def zero_shot(
    backbone: Backbone, class_names: ClassNames, templates: Sequence[str] = (), dataset: str | None = None
) -> Method:
    """The zero-shot classifier to compare with, with `templates` or those of a benchmark data set.

    `class_names` may map labels to the names in prompts: `Method.names`.
    """
    options: dict[str, object] = {}
    if templates:
        options = {"templates": tuple(templates)}
    elif dataset is not None:
        options = {"dataset": dataset}
    return get_method("zero_shot")(backbone, class_names, make_config("zero_shot", options)).eval()


@torch.no_grad()
def seen_by(method: Method, batches: Iterable[tuple[Tensor, Tensor]]) -> Seen:
    """What a method that `joins_ensemble` sees in batches of images and labels, in one pass of its image tower."""
    transfer, rows = Transfer(method.device), []
    for batch, labels in batches:
        features = method.encode(*transfer(batch))
        rows.append((F.normalize(features.float(), dim=-1), method.logits(features).float(), labels))
    z, logits, labels = (torch.cat(part).cpu() for part in zip(*rows, strict=True))
    return Seen(z.double().numpy(), logits.double().numpy(), labels.numpy())


def can_join(method: Method, templates: Sequence[str] = ()) -> bool:
    """Whether `join_ensemble` is for the method. Raises MethodError, before the training, for a prompt too long."""
    if not method.joins_ensemble or method.sigmoids is not None:
        return False
    names, _ = pool_names(method.prompt_names)
    for template in tuple(templates) or choose_templates():
        try:
            check_length(method.backbone, fill(template, names), names)
        except MethodError as error:
            raise MethodError(f"{str(error).rstrip('.')}; or leave it out with --ensemble none.") from error
    return True


def join_ensemble(method: Method, train: ImageLoader, val: ImageLoader | None, templates: Sequence[str] = ()) -> None:
    """Give a trained method that `joins_ensemble` its ensemble: `templates` or "a photo of a {}.", and the images."""
    method.eval()
    templates = tuple(templates) or choose_templates()
    w0 = zero_shot(method.backbone, method.names, templates).text_features().double().cpu().numpy()
    held = None if val is None else seen_by(method, val.evaluation())
    seen = seen_by(method, train.evaluation())
    from threadpoolctl import threadpool_limits  # slow to import

    with threadpool_limits(1, "blas"):  # between small products, several threads would wait for each other
        method.ensemble = fit_ensemble(seen, w0, held, templates=templates).to(method.device)


def calibrated(method: Method, val: ImageLoader, temperature: float = 1.0) -> Calibration:
    """The temperature by validation images, which also say how probable true classes are at this temperature.

    `temperature` is kept if no other makes new images more likely.
    """
    seen = evaluate(method, val, temperature=temperature)
    if isinstance(seen, Presence):
        y, p = seen.pairs
        of_pairs = calibrate(y, np.log(np.maximum(p, np.finfo(np.float32).tiny)))
        return replace(of_pairs, images=len(seen.labels), temperature=of_pairs.temperature * temperature)
    logits = np.log(np.maximum(seen.probabilities, np.finfo(np.float32).tiny), dtype=np.float64)
    found = calibrate(seen.labels, logits)
    if method.ensemble is not None and method.ensemble.mix.similarity:
        method.ensemble.judge_by(scaled(logits, found.temperature)[np.arange(len(seen.labels)), seen.labels])
    return replace(found, temperature=found.temperature * temperature)


@torch.no_grad()
def start_sigmoids(method: Method, train: ImageLoader) -> None:
    """Set where a method that judges each class by itself starts, by its scores of the training images."""
    if method.sigmoids is None:
        return
    transfer, mode, parts = Transfer(method.device), method.training, []
    method.eval()
    for images, labels in (transfer(*batch) for batch in train.evaluation()):
        parts.append((method.logits(images).float(), labels))
    method.train(mode)
    method.sigmoids.start(*(torch.cat(part) for part in zip(*parts, strict=True)))


def set_thresholds(method: Method, val: ImageLoader | None, temperature: float = 1.0) -> None:
    """Set the thresholds of a method that judges each class by itself to those of the best F1 on validation images."""
    if method.sigmoids is not None and val is not None:
        seen = evaluate(method, val, temperature=temperature)
        found = best_thresholds(seen.labels, seen.probabilities, THRESHOLD)
        method.sigmoids.thresholds.copy_(torch.from_numpy(found))


def judge_by_images(method: Method, train: ImageTable, val: ImageTable | None, decoder: Decoder) -> None:
    """Let zero-shot CLIP judge each class by itself, with a bias by training and thresholds by validation images."""
    judge_by_itself(method)
    loader = partial(
        ImageLoader, preprocess=method.backbone.preprocess, batch_size=BATCH, drop_last=False, decoder=decoder
    )
    start_sigmoids(method, loader(train))
    set_thresholds(method, None if val is None else loader(val))


def nearest_words(method: Method, count: int) -> list[dict[str, Any]]:
    """For each learned text token the nearest vocabulary entries in the embedding space, nearest first.

    Euclidean distance, as CoOp's interpret_prompt.py. Empty for methods without a common text prompt (M, W).
    """
    prompt = method.state_dict().get("text_prompt")
    table = method.clip.text.embed(range(method.clip.config.vocab_size))  # (vocabulary, W)
    if prompt is None or prompt.dim() != 2 or prompt.shape[1] != table.shape[1]:
        return []
    spoken = table.norm(dim=1) > 0  # a backbone may lack entries that it was not trained on
    distances = torch.cdist(prompt.float(), table).masked_fill(~spoken, float("inf"))  # (M, vocabulary)
    near = distances.topk(min(count, int(spoken.sum())), largest=False)
    decode = method.backbone.tokenizer.decode
    return [
        {
            "token": place,
            "words": [
                {"word": decode([index]).strip(), "distance": distance}
                for index, distance in zip(indices, values, strict=True)
            ],
        }
        for place, (indices, values) in enumerate(zip(near.indices.tolist(), near.values.tolist(), strict=True), 1)
    ]
