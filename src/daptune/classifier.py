"""`FewShotClassifier`: any method of daptune as a scikit-learn classifier of images; and `load`, to get one back.

The contract is scikit-learn's (developers' guide, "Rolling your own estimator"): the constructor only stores, `fit`
validates, forgets earlier fits and returns self, what was learned ends in `_`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from daptune.adapter.store import check_start, load_adapter, make_record, save_adapter, start_from
from daptune.clip.backbone import Backbone, load_backbone
from daptune.clip.hub import resolve as resolve_name
from daptune.clip.preprocess import Preprocess
from daptune.clip.transfer import Transfer
from daptune.data.check import DecodeReport, check_readable, drop_unreadable
from daptune.data.fewshot import FewShot, sample_fewshot
from daptune.data.loader import ImageLoader
from daptune.data.sources import read_source, table_from_lists
from daptune.data.table import ImageTable
from daptune.errors import DataError, MethodError, TrainingError, suggest
from daptune.methods import MethodConfig, get_method, make_config
from daptune.predict.predictor import Predictor
from daptune.presets import resolve
from daptune.train import Progress, TrainConfig, fit_method


class FewShotClassifier(ClassifierMixin, Predictor, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Learn to classify images from a few of each class, by prompts of a frozen CLIP.

    method          a name of `daptune.METHODS`
    backbone        a name for `daptune.load_backbone`, or a loaded `Backbone`
    shots           images of each class to learn from; None: all
    seed            draws the images, the first prompts and the order of training
    method_options  fields of the method's config, such as {"inter_weight": 1}
    train_options   fields of `TrainConfig`, such as {"epochs": 20, "lr": 0.01}
    class_names     names for labels that are the integers 0, 1, ...; without it a class is named by its digits
    start_from      folder of an adapter of the same method and backbone whose learned tensors training starts from
    preset, dataset "paper": the settings of the official code, for a benchmark data set; "fast": a short run from
                    words; options go over them
    precision       of the frozen towers: "auto", "fp32", "bf16", "fp16-faithful"
    device          of torch
    batch_size      images at a time in prediction
    cache_dir       folder that keeps decoded training images for later runs (20 GB at most); None: memory alone
    scaled_decoding predict from large JPEGs decoded at a fraction of their size: faster, not quite the same pixels

    Fitted: `classes_` (what `predict` answers with, in the order of the columns of `predict_proba`), `method_`,
    `backbone_`, `history_`, `train_table_`, `record_`.
    """

    def __init__(
        self,
        method: str = "dapt",
        backbone: str | Backbone = "tiny",
        *,
        shots: int | None = 16,
        seed: int = 1,
        method_options: Mapping[str, Any] | None = None,
        train_options: Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        start_from: str | Path | None = None,
        preset: str | None = None,
        dataset: str | None = None,
        precision: str = "auto",
        device: str = "cpu",
        batch_size: int = 64,
        cache_dir: str | Path | None = None,
        scaled_decoding: bool = False,
    ) -> None:
        self.method = method
        self.backbone = backbone
        self.shots = shots
        self.seed = seed
        self.method_options = method_options
        self.train_options = train_options
        self.class_names = class_names
        self.start_from = start_from
        self.preset = preset
        self.dataset = dataset
        self.precision = precision
        self.device = device
        self.batch_size = batch_size
        self.cache_dir = cache_dir
        self.scaled_decoding = scaled_decoding

    def fit(
        self,
        images: Any,
        labels: Any = None,
        *,
        val: ImageTable | None = None,
        run_dir: Path | None = None,
        resume: bool = False,
        progress: Callable[[Progress], None] | None = None,
        before: Callable[[Self], None] | None = None,
    ) -> Self:
        """Learn from `images` (paths, PIL images, uint8 arrays) with `labels` (names or integers).

        Without labels, `images` is any source that `daptune.read_source` takes: a folder, a table, a data set.
        `val` chooses the epoch with train_options={"select": "best_val"}; run_dir, resume and progress are those
        of `daptune.train.fit_method`; `before` is called with the classifier when all is set up, before training.
        Images that cannot be read are logged together and left out. Raises DaptuneError for bad input.
        """
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        method_class, method_config, train_config = self.settings()
        table, val = self._tables(images, labels, val)
        drawn = self._draw(table, val)

        backbone = self.backbone
        if isinstance(backbone, str):
            backbone = load_backbone(backbone, precision=self.precision, device=self.device)
        method = method_class(backbone, drawn.train.class_names, method_config, seed=self.seed)
        if self.start_from is not None:
            start_from(method, self.start_from)
        given = _integer_labels(labels, self.class_names)
        self.classes_ = np.array(drawn.train.class_names) if given is None else given
        self.train_table_, self.val_table_ = drawn.train, drawn.val
        self.backbone_, self.method_ = backbone, method

        def loader(part: ImageTable, *, training: bool) -> ImageLoader:
            size = train_config.batch_size if training else self.batch_size
            on = backbone.device if train_config.augment_on == "device" else None
            return ImageLoader(
                part,
                backbone.preprocess,
                size,
                seed=self.seed,
                augment=training,
                shuffle=training,
                augmentation=train_config.augmentation,
                augment_on=on,
                views=train_config.views,
                cache_dir=None if self.cache_dir is None else Path(self.cache_dir),
            )

        train = loader(drawn.train, training=True)
        steps = -(-train.batches_per_epoch // train_config.accumulate)
        self.train_config_ = train_config.resolved(steps, method.default_lr)
        if before is not None:
            before(self)
        self.history_ = fit_method(
            method,
            train,
            train_config,
            val=None if drawn.val is None else loader(drawn.val, training=False),
            run_dir=run_dir,
            resume=resume,
            progress=progress,
        )
        data: dict[str, Any] = {"fingerprint": drawn.train.fingerprint(), "images": len(drawn.train)}
        if method.started_from is not None:
            data["started_from"] = method.started_from
        self.record_ = make_record(
            method,
            backbone,
            train_config=self.train_config_ if self.history_.rows else None,
            shots=self.shots,
            seed=self.seed,
            data=data,
            labels=None if given is None else [int(label) for label in given],
        )
        return self

    @property
    def preprocess(self) -> Preprocess:
        """The image transform of the backbone."""
        check_is_fitted(self, "record_")
        return self.backbone_.preprocess

    def probabilities(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """softmax(logits / temperature): preprocessed images (B, 3, R, R) -> (B, C)."""
        check_is_fitted(self, "record_")
        transfer = Transfer(self.backbone_.device)
        with torch.inference_mode():
            logits = self.method_.logits(*transfer(torch.from_numpy(images))).float()
            found: NDArray[np.float32] = (logits / self.record_.temperature).softmax(dim=-1).cpu().numpy()
        return found

    def score(self, images: Any, labels: Any = None, sample_weight: Any = None) -> float:
        """Accuracy on labelled images. Without labels, `images` is a source: its test images, or all."""
        check_is_fitted(self, "record_")
        if labels is None:
            splits = read_source(images, label_names=self.method_.class_names, training=False)
            table = splits.test or splits.whole()
            images, labels = list(table.images), self.classes_[table.labels]
        return float(super().score(images, labels, sample_weight))

    def save(self, folder: str | Path) -> Path:
        """Write the adapter folder, as a whole, and return it; an adapter that is there is replaced."""
        check_is_fitted(self, "record_")
        return save_adapter(folder, self.method_, self.record_)

    def with_classes(self, class_names: Sequence[str]) -> Self:
        """The same prompts for other classes, as a new classifier; MethodError where they belong to the old ones."""
        check_is_fitted(self, "record_")
        method = self.method_.with_classes(class_names)
        record = make_record(method, self.backbone_, shots=self.shots, seed=self.seed, data=self.record_.data)
        other: Self = clone(self).set_params(class_names=list(class_names))
        other.classes_ = np.array(method.class_names)
        other.method_, other.backbone_, other.record_ = method, self.backbone_, record
        return other

    def settings(self) -> tuple[type[Any], MethodConfig, TrainConfig]:
        """The method's class, its config and the training's, checked: what `fit` will use.

        Raises MethodError, TrainingError, BackboneError or AdapterError for an unknown name or a value that cannot be.
        """
        method_class = get_method(self.method)
        if self.shots is not None and (not _is_whole(self.shots) or self.shots < 1):
            raise DataError(f"shots must be a whole number of at least 1, or None for all; found {self.shots!r}")
        if not _is_whole(self.seed) or self.seed < 0:
            raise DataError(f"seed must be a whole number of at least 0; found {self.seed!r}")
        if isinstance(self.backbone, str):
            resolve_name(self.backbone)
        if self.dataset is not None and self.preset is None:
            raise MethodError("dataset chooses among the settings of a preset; give preset='paper' with it")
        options, training = dict(self.method_options or {}), dict(self.train_options or {})
        if self.preset is not None:
            preset = resolve(self.preset, self.method, shots=self.shots, dataset=self.dataset)
            options, training = preset.method | options, preset.train | training
        known = {field.name for field in fields(TrainConfig)}
        for name in training:
            if name not in known:
                raise TrainingError(f"training has no option {name!r}.{suggest(name, known)}")
        config = make_config(self.method, options)
        if self.start_from is not None:
            check_start(self.start_from, self.method)
        return method_class, config, TrainConfig(**({"seed": self.seed} | training))

    def _tables(self, images: Any, labels: Any, val: ImageTable | None) -> tuple[ImageTable, ImageTable | None]:
        if labels is not None:
            return table_from_lists(images, labels, label_names=self.class_names), val
        splits = read_source(images, label_names=self.class_names)
        return splits.train, splits.val if val is None else val

    def _draw(self, table: ImageTable, val: ImageTable | None) -> FewShot:
        """The few-shot draw, of images that can be read: a bad one is left out and the draw made again."""
        while True:
            drawn = sample_fewshot(table, self.shots, self.seed, val=val)
            bad = check_readable(drawn.train)
            bad_val = None if drawn.val is None else check_readable(drawn.val)
            if not bad and not bad_val:
                return drawn
            table = _without(table, drawn.train_indices, bad)
            if val is not None and drawn.val_indices is not None and bad_val is not None:
                val = _without(val, drawn.val_indices, bad_val)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags


def load(
    folder: str | Path,
    backbone: Backbone | None = None,
    *,
    precision: str | None = None,
    device: str = "cpu",
) -> FewShotClassifier:
    """A fitted classifier from an adapter folder; errors as of `daptune.load_adapter`."""
    adapter = load_adapter(folder, backbone, precision=precision, device=device)
    record = adapter.record
    classifier = FewShotClassifier(
        method=record.method,
        backbone=record.backbone["name"],
        shots=record.shots,
        seed=1 if record.seed is None else record.seed,
        method_options=record.method_config,
        train_options=record.train_config or None,
        precision=adapter.backbone.precision,
        device=device,
    )
    names = np.array(record.class_names)
    classifier.classes_ = names if record.labels is None else np.array(record.labels)
    classifier.method_, classifier.backbone_, classifier.record_ = adapter.method, adapter.backbone, record
    return classifier


def _integer_labels(labels: Any, class_names: Sequence[str] | None) -> NDArray[np.int64] | None:
    """What `predict` answers with where the labels are integers, in the order of the classes; else None."""
    if labels is None or not all(_is_whole(label) for label in labels):
        return None
    return np.unique(np.asarray(labels, dtype=np.int64)) if class_names is None else np.arange(len(class_names))


def _without(table: ImageTable, rows: NDArray[np.int64], report: DecodeReport) -> ImageTable:
    """The table without the images that a report on its `rows` names; DataError if a class is left empty."""
    found = tuple(replace(bad, index=int(rows[bad.index])) for bad in report.unreadable)
    return drop_unreadable(table, DecodeReport(found, report.checked))


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
