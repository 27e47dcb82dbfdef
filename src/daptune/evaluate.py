"""Predictions of a method on labelled images, and the zero-shot classifier to compare them with.

The one place where accuracy is measured: training, the classifier, the command line, `bench` and `report` use it.
n images, C classes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from daptune import metrics
from daptune.calibration import Calibration, calibrate, scaled
from daptune.clip.backbone import Backbone
from daptune.clip.pooling import pool_names
from daptune.clip.transfer import Transfer
from daptune.data.cache import Decoder
from daptune.data.loader import ImageLoader
from daptune.data.table import ImageTable
from daptune.errors import DataError, MethodError
from daptune.methods import Method, get_method, make_config
from daptune.methods.ensemble import Seen, fit_ensemble
from daptune.methods.templates import check_length, choose_templates, fill
from daptune.names import ClassNames

BATCH = 64
"""Default number of images per batch."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Predictions on n labelled images, and the figures computed from them.

    probabilities   (n, C), float32 as measured, rows that sum to 1      labels   (n,) int64, the true classes
    known           p value of each image's similarity to known images (n,), or None (`Ensemble.known`)
    truth           probabilities of the true classes of known images, ascending, or empty
    """

    probabilities: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]
    known: NDArray[np.float64] | None = None
    truth: tuple[float, ...] = ()

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The most likely class of each image, (n,)."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image is classified right, (n,)."""
        return self.predicted == self.labels

    @cached_property
    def accuracy(self) -> float:
        """Share of images that are classified right, 0 to 1."""
        return metrics.accuracy(self.labels, self.predicted)

    @cached_property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have images, 0 to 1."""
        return metrics.macro_f1(self.labels, self.predicted)

    @cached_property
    def nll(self) -> float:
        """Mean negative log-likelihood of the true class, in nats."""
        return metrics.negative_log_likelihood(self.labels, self.probabilities)

    @cached_property
    def calibration_error(self) -> float:
        """Expected calibration error with 15 bins, 0 to 1."""
        return metrics.expected_calibration_error(self.labels, self.probabilities)

    @cached_property
    def per_class(self) -> NDArray[np.float64]:
        """Accuracy within each class, (C,); NaN for a class without images."""
        return metrics.per_class_accuracy(self.labels, self.predicted, self.probabilities.shape[1])

    def turned_away(self, reject: float) -> float:
        """Share of images that are called unknown if this share of known images may be; NaN without `known`."""
        return float("nan") if self.known is None else float((self.known <= reject).mean())

    def covered(self, error: float) -> tuple[float, float]:
        """Share of images whose prediction set holds the truth, and mean number of classes in a set."""
        within = metrics.prediction_sets(self.truth, self.probabilities, error)
        return float(within[np.arange(len(self.labels)), self.labels].mean()), float(within.sum(axis=1).mean())

    def __getitem__(self, figure: str) -> Any:
        return getattr(self, figure)  # `evaluate` once gave a dict

    def among(self, columns: Sequence[int]) -> "Measured":
        """The same images with predictions restricted to some classes; `labels` already index `columns`."""
        chosen = self.probabilities[:, list(columns)]
        return Measured(chosen / np.maximum(chosen.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny), self.labels)

    def to_json(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Accuracy, macro_f1, nll and per_class as plain values; classes without images are left out."""
        rows = zip(class_names, self.per_class.tolist(), strict=True)
        return {
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "nll": self.nll,
            "per_class": {name: value for name, value in rows if value == value},  # NaN differs from itself
        }


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
                        alone = method.logits(seen).float().softmax(dim=-1)
                        probabilities.setdefault(f"{name} alone", []).append(alone.cpu())
                        if (values := method.ensemble.known(seen)) is not None:
                            known.setdefault(name, []).append(values)
                    logits = method.answer(seen).float()  # (B, C)
                    probabilities.setdefault(name, []).append((logits / temperature).softmax(dim=-1).cpu())
                labels.append(truth)
                after_batch()
    finally:
        for method, mode in modes.items():
            method.train(mode)
    if not labels:
        raise DataError("There are no images to measure on; give at least one.")
    right = torch.cat(labels).cpu().numpy()
    of_known = {name: method.ensemble.mix.truth for name, (method, _) in methods.items() if method.ensemble is not None}
    return {
        name: Measured(
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
    if not method.joins_ensemble:
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
    logits = np.log(np.maximum(seen.probabilities, np.finfo(np.float32).tiny), dtype=np.float64)
    found = calibrate(seen.labels, logits)
    if method.ensemble is not None and method.ensemble.mix.similarity:
        method.ensemble.judge_by(scaled(logits, found.temperature)[np.arange(len(seen.labels)), seen.labels])
    return replace(found, temperature=found.temperature * temperature)


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
