"""`FewShotClassifier`: any method of daptune as a scikit-learn classifier of images; and `load`, for a saved one.

As scikit-learn's developers' guide has it ("Rolling your own estimator"): the constructor (a dataclass's) only stores
arguments; `fit` validates and returns self; fitted attributes end in `_`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from daptune.adapter.record import AdapterRecord
from daptune.adapter.store import check_start, load_adapter, make_record, save_adapter, start_from
from daptune.choose.choice import AUTO, CANDIDATES, check_auto, check_settings, choose, learners
from daptune.choose.trials import Settings, Trials
from daptune.clip.backbone import Backbone, load_backbone
from daptune.clip.hub import resolve as resolve_name
from daptune.data.benchmarks.registry import canonical
from daptune.data.cache import Decoder
from daptune.data.heldout import Support, draw_support
from daptune.data.labels import integer_labels
from daptune.data.loader import ImageLoader
from daptune.data.sources import labelled, table_from_lists
from daptune.data.stream import SCALED_MARGIN
from daptune.data.table import ImageTable, Splits
from daptune.data.weights import check_class_weight
from daptune.embedded import choose_backbone
from daptune.errors import DataError, MethodError, TrainingError
from daptune.evaluate import calibrated, can_join, join_ensemble, measure, set_thresholds
from daptune.measured import Measured
from daptune.methods import get_method, make_config, say_unreadable
from daptune.methods.options import parse_options
from daptune.methods.sigmoids import check_multi_label
from daptune.names import ClassNames, match_names
from daptune.predict.adapted import AdapterPredictor
from daptune.predict.unlabelled import Unlabelled, learn_unlabelled, unlabelled_sources
from daptune.presets import EXPERIMENTS, PROTOCOL_SHOTS, resolve
from daptune.train import Progress, TrainConfig, fit_method
from daptune.train.schedule import EPOCH_SHOTS
from daptune.train.weighing import weigh_classes


@dataclass(eq=False, repr=False)
class FewShotClassifier(ClassifierMixin, AdapterPredictor, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """A classifier of images trained on a few examples per class, by prompts of a frozen CLIP.

    method          a name of `daptune.METHODS`, or "auto": chosen by cross-validation (`daptune.choose.choice`)
    backbone        a name for `daptune.load_backbone`, a loaded `Backbone`, or "auto" (`daptune.embedded`)
    shots           training images per class, or "all"; None: all, and 16 with preset="paper"
    seed            random seed for the few-shot sample, the initial prompts and the order of training
    method_options  fields of the method's config, such as {"inter_weight": 1}
    train_options   fields of `TrainConfig`, such as {"epochs": 20, "lr": 0.01}
    minutes         time limit of that choice; the training of the chosen method comes on top
    ensemble        "auto": after training, add hand-written prompts and the training images to the answer, for methods
                    whose `joins_ensemble` says so (`daptune.methods.ensemble`); "none". A paper's preset has "none"
    templates       hand-written prompts of the ensemble, such as "a photo of a {}."; empty: that one
    class_weight    weights of the classes in the loss: "auto" by inverse frequency, or numbers by class name; None: 1
    multi_label     images have any number of labels: each class is judged by itself (docs/multi-label.md)
    calibrate       "auto": after training, a temperature by the validation images, if there are any and if it makes
                    images that it was not fitted to more likely (`daptune.calibration`); "none". A paper's preset has
                    "none"
    class_names     names for labels that are the integers 0, 1, ...; without it a class is named by its digits.
                    Or {label: name or [names]}: prompts say these, answers keep the labels (`n01532829`, `猫`, 17)
    start_from      folder of an adapter of the same method and backbone to initialise the learned tensors from
    preset, dataset, experiment  "paper": the official code's settings, for a benchmark data set and one of
                    `daptune.presets.EXPERIMENTS`; "fast": a short run from words; options override them
    precision       of the frozen towers: "auto", "fp32", "bf16", "fp16-faithful"
    device          PyTorch device
    batch_size      images per batch in prediction
    cache_dir       folder that keeps decoded images for later runs (20 GB at most); None: memory only
    scaled_decoding predict from large JPEGs decoded at a fraction of their size: faster, slightly different pixels

    Fitted:

    classes_        labels that `predict` returns, in the order of the columns of `predict_proba`
    method_         the trained `Method`; `backbone_` its frozen CLIP, `backbone_why_` the reason with "auto", or ""
    choice_         with method="auto" what was tried and why `method_` was chosen, as in adapter.json; else None
    train_table_    the drawn training images; `val_table_` the validation images, or None
    left_out_       number of training images that were not drawn
    test_table_     the test images of the source or those held out, or None; `test_name_` names them
    train_config_   the `TrainConfig` with every default filled in; `history_` the losses by epoch
    calibration_    the `Calibration` of the temperature, or None; `record_` the `AdapterRecord` that `save` writes
    unlabelled_     what unlabelled images taught (`daptune.predict.unlabelled`), or None
    """

    method: str = "dapt"
    backbone: str | Backbone = "tiny"
    _: KW_ONLY
    shots: int | str | None = None
    seed: int = 1
    method_options: Mapping[str, Any] | None = None
    train_options: Mapping[str, Any] | None = None
    minutes: float = 2.0
    ensemble: str = "auto"
    templates: Sequence[str] = ()
    class_weight: str | Mapping[Any, float] | None = None
    multi_label: bool = False
    calibrate: str = "auto"
    class_names: ClassNames | None = None
    start_from: str | Path | None = None
    preset: str | None = None
    dataset: str | None = None
    experiment: str = EXPERIMENTS[0]
    precision: str = "auto"
    device: str = "cpu"
    batch_size: int = 64
    cache_dir: str | Path | None = None
    scaled_decoding: bool = False

    def fit(
        self,
        images: Any,
        labels: Any = None,
        *,
        unlabelled: Any = None,
        val: ImageTable | None = None,
        holdout: float | None = None,
        run_dir: Path | None = None,
        resume: bool = False,
        progress: Callable[[Progress], None] | None = None,
        tell: Callable[[str], None] | None = None,
        before: Callable[[Self], None] | None = None,
        decoder: Decoder | None = None,
    ) -> Self:
        """Train on `images` (paths, PIL images, uint8 arrays) with `labels` (names or integers).

        With `multi_label`, labels are lists of names or an indicator matrix (n, C). Without labels, `images` is any
        source of `daptune.read_source`: a folder, a table, a data set. `val` is used to select the epoch with
        train_options={"select": "best_val"}; run_dir, resume and progress are those of `daptune.train.fit_method`;
        `before` is called with the classifier right before training, `tell` with a line on each step of the choice.
        `holdout` is the share of images that becomes `test_table_` if the source has no test split; all images are then
        checked first (`daptune.data.heldout`), and none that is held out is trained on. `decoder` shares decoded
        images. `unlabelled` images of these classes, a list or a folder, improve the answers to later ones
        (docs/transductive.md). Unreadable images are logged and left out. Raises DaptuneError for bad input.
        """
        for name in [name for name in vars(self) if name.endswith("_")]:  # of an earlier fit
            delattr(self, name)
        recipes = self._recipes()
        decoder = Decoder(cache_dir=self.cache_dir) if decoder is None else decoder
        drawn = self.draw(images, labels, val=val, holdout=holdout, decoder=decoder)
        given = integer_labels(labels, None if isinstance(self.class_names, Mapping) else self.class_names)
        self.classes_ = np.array(drawn.train.class_names) if given is None else given
        self.train_table_, self.val_table_, self.left_out_ = drawn.train, drawn.val, drawn.left_out
        self.test_table_, self.test_name_ = drawn.test, drawn.test_name
        names = self.spoken(drawn.train)  # a fault in them is told before the backbone is loaded
        (backbone, self.backbone_why_), self.choice_ = self.loaded_backbone(drawn.train, decoder), None
        if self.method == AUTO:
            trials = partial(self.trials, recipes, drawn, backbone, decoder=decoder, tell=tell, minutes=self.minutes)
            self.choice_ = choose(trials, run_dir, resume=resume)
        chosen, method_config, train_config = recipes[self.choice_["method"] if self.choice_ else self.method]
        method = chosen(backbone, names, method_config, seed=self.seed)
        say_unreadable(method)
        if self.start_from is not None:
            start_from(method, self.start_from)
        self.backbone_, self.method_ = backbone, method
        weigh_classes(method, self.class_weight, drawn.train)
        others = unlabelled_sources(method, unlabelled)
        train = self._loader(drawn.train, train_config, decoder, training=True)
        steps = -(-train.batches_per_epoch // train_config.accumulate)
        self.train_config_ = train_config.resolved(steps, method.default_lr, text_first=method.text_first)
        joins = self.preset != "paper" and self.ensemble == "auto" and can_join(method, self.templates)
        if before is not None:
            before(self)
        held = None if drawn.val is None else self._loader(drawn.val, train_config, decoder, training=False)
        self.history_ = fit_method(
            method, train, self.train_config_, val=held, run_dir=run_dir, resume=resume, progress=progress
        )
        self._finish(train, held, others, joins=joins, labels=given, holdout=holdout)
        return self

    def _finish(self, train: ImageLoader, held: ImageLoader | None, others: Any, *, joins: bool, **about: Any) -> None:
        """After the training: ensemble, temperature, what `others` teach, which are unlabelled images, and record."""
        self.unlabelled_: Unlabelled | None = None
        judge = held if self.preset != "paper" and self.calibrate == "auto" else None

        def record(temperature: float) -> None:
            self.calibration_ = None if judge is None else calibrated(self.method_, judge, temperature)
            set_thresholds(self.method_, held, 1.0 if self.calibration_ is None else self.calibration_.temperature)
            self.record_ = self._record(temperature=temperature, **about)

        if joins:
            join_ensemble(self.method_, train, held, self.templates)
        record(1.0)
        if others is not None:
            self.unlabelled_ = learn_unlabelled(self, others, train, held, judged=judge is not None)
            record(self.unlabelled_.temperature)

    def check_fitted(self) -> None:
        check_is_fitted(self, "record_")

    def evaluate(
        self,
        images: Any,
        labels: Any = None,
        *,
        decoder: Decoder | None = None,
        after_batch: Callable[[], object] = int,
    ) -> Measured:
        """Accuracy, macro_f1, nll, per_class and probabilities on labelled images, at the adapter's temperature.

        Without labels, `images` is a source: its test images, or all. To compare with zero-shot CLIP, see `zero_shot`
        and `measure_beside` in `daptune.evaluate`. Raises DataError for an unreadable image and for an unknown label;
        `decoder` and `after_batch` are those of `daptune.evaluate.measure`.
        """
        self.check_fitted()
        if decoder is None and self.scaled_decoding:
            decoder = Decoder(0, shrink_to=SCALED_MARGIN * self.backbone_.preprocess.size)
        return measure(
            self.method_,
            self._labelled(images, labels),
            temperature=self.record_.temperature,
            batch_size=self.batch_size,
            decoder=decoder,
            after_batch=after_batch,
        )

    def score(self, images: Any, labels: Any = None, sample_weight: Any = None) -> float:
        """Accuracy, or mAP with `multi_label`. Without labels, `images` is a source: its test images, or all."""
        self.check_fitted()
        if self.multi_label:
            if sample_weight is not None:
                raise DataError("mAP weighs no images; leave out sample_weight")
            return self.evaluate(images, labels).headline
        if labels is None:
            return float(np.average(self.evaluate(images).correct, weights=sample_weight))
        return float(super().score(images, labels, sample_weight))  # accepts labels other than the classes

    def save(self, folder: str | Path) -> Path:
        """Write the adapter folder atomically and return it; an existing adapter is replaced."""
        self.check_fitted()
        return save_adapter(folder, self.method_, self.record_)

    def with_classes(self, class_names: ClassNames) -> Self:
        """A new classifier with the same prompts for other classes, or for {label: name or [names]}.

        Drops the temperature and what is known of the training images. MethodError: prompts depend on the old classes.
        """
        self.check_fitted()
        method = self.method_.with_classes(class_names)
        say_unreadable(method)
        data = dict(self.record_.data)
        for name in ("class_weight", "unlabelled"):  # of the old classes
            data.pop(name, None)
        record = make_record(method, self.backbone_, shots=self._shots, seed=self.seed, data=data)
        kept = dict(class_names) if isinstance(class_names, Mapping) else list(class_names)
        other: Self = clone(self).set_params(class_names=kept, class_weight=None)
        other.classes_ = np.array(method.class_names)
        other.method_, other.backbone_, other.record_ = method, self.backbone_, record
        return other

    def _recipes(self) -> dict[str, Settings]:
        """The settings of the method by its name, or of those that "auto" tries."""
        if self.method != AUTO:
            return {self.method: self.settings()}
        check_auto(self.minutes, self.method_options, self.start_from, self.preset)
        return {name: self.settings(name) for name in learners(CANDIDATES, self.multi_label)}

    def draw(
        self,
        images: Any,
        labels: Any = None,
        *,
        val: ImageTable | None = None,
        holdout: float | None = None,
        decoder: Decoder,
    ) -> Support:
        """The images that `fit` would learn from, with the same arguments; they are decoded."""
        own = isinstance(self.class_names, Mapping)
        names = None if isinstance(self.class_names, Mapping) else self.class_names
        more: dict[str, Any] = {"label_names": names, "multi_label": self.multi_label}
        source = images if labels is None else Splits(table_from_lists(images, labels, **more))
        more |= {"own_ids": own, "val": val, "holdout": holdout}
        return draw_support(source, self._shots, self.seed, decoder=decoder, **more)

    def trials(self, recipes: Mapping[str, Settings], drawn: Support, backbone: Backbone, **limits: Any) -> Trials:
        """The cross-validation of some methods with this classifier's settings; `limits` are fields of `Trials`."""
        limits |= {"names": self.spoken(drawn.train), "class_weight": self.class_weight, "templates": self.templates}
        limits |= {"seed": self.seed, "ensemble": self.ensemble == "auto", "batch_size": self.batch_size}
        return Trials(recipes, drawn.train, backbone, drawn.val, **limits)

    def loaded_backbone(self, table: ImageTable, decoder: Decoder) -> tuple[Backbone, str]:
        """The backbone, loaded unless it was given as an object, and why it was chosen, or ""."""
        load, given = partial(load_backbone, precision=self.precision, device=self.device), self.backbone
        if given == AUTO:
            return choose_backbone(table, self.spoken(table), self.templates, decoder, load)
        return (load(given) if isinstance(given, str) else given), ""

    def spoken(self, table: ImageTable) -> ClassNames:
        """What prompts call the classes of a table."""
        given = self.class_names
        return match_names(table.class_names, given) if isinstance(given, Mapping) else table.class_names

    def settings(self, name: str | None = None) -> Settings:
        """The method's class, its config and the training's, validated, as `fit` uses them.

        `name` is another method to use them for: options of a method are then the hand-written prompts alone.
        Raises DataError, MethodError, TrainingError, BackboneError or AdapterError for an unknown name or a bad value.
        """
        if name is None and self.method == AUTO:
            raise MethodError(f"auto chooses among {', '.join(CANDIDATES)}; name one of them here")
        method_class = get_method(self.method if name is None else name)
        shots = self._shots
        check_settings(shots, self.seed, {"ensemble": self.ensemble, "calibrate": self.calibrate}, self.templates)
        if isinstance(self.backbone, str) and self.backbone != AUTO:
            resolve_name(self.backbone)
        if self.preset is None and (self.dataset, self.experiment) != (None, EXPERIMENTS[0]):
            raise MethodError("dataset and experiment choose among a preset's settings; give preset='paper' with them")
        options, training = dict(self.method_options or {}), dict(self.train_options or {})
        if name is not None:
            own = {option.name for option in fields(method_class.config_class)}
            options = {"templates": tuple(self.templates)} if self.templates and "templates" in own else {}
        elif self.preset is not None:
            dataset = None if self.dataset is None else canonical(self.dataset)
            preset = resolve(self.preset, method_class.name, shots=shots, dataset=dataset, experiment=self.experiment)
            fixed = preset.train if "steps" not in training else preset.train | {"epochs": None}
            options, training = preset.method | options, fixed | training
        if shots is None and self.preset not in PROTOCOL_SHOTS:  # epochs that do not grow with the images
            even = self.class_weight is None and not self.multi_label  # weights even classes out already
            sampling = "balanced" if even else "shuffled"
            training = {"sampling": sampling, "epoch_shots": EPOCH_SHOTS} | training
        training = {"seed": self.seed} | parse_options("training", TrainConfig, training, TrainingError)
        config = make_config(method_class.name, options)
        if self.multi_label:
            check_multi_label(method_class)
        if self.start_from is not None and name is None:
            check_start(self.start_from, method_class.name)
        train_config = TrainConfig(**training)
        check_class_weight(self.class_weight, balanced=train_config.sampling == "balanced")
        return method_class, config, train_config

    @property
    def _shots(self) -> Any:
        """Training images per class; None: all."""
        if self.shots is None:
            return PROTOCOL_SHOTS.get(self.preset or "")
        return None if self.shots == "all" else self.shots

    def _loader(self, part: ImageTable, config: TrainConfig, decoder: Decoder, *, training: bool) -> ImageLoader:
        size = config.batch_size if training else self.batch_size
        return config.loader(part, self.backbone_, size, seed=self.seed, training=training, decoder=decoder)

    def _record(self, labels: NDArray[np.int64] | None, holdout: float | None, temperature: float) -> AdapterRecord:
        method, table = self.method_, self.train_table_
        data: dict[str, Any] = {"fingerprint": table.fingerprint(), "images": len(table), "per_class": table.spread()}
        if self.choice_ is not None:
            data["chosen"] = self.choice_
        if method.started_from is not None:
            data["started_from"] = method.started_from
        if holdout is not None and self.test_table_ is not None:
            data["holdout"] = holdout
        if (named := self.class_weight) is not None:
            data["class_weight"] = named if isinstance(named, str) else {str(k): float(v) for k, v in named.items()}
        if (learned := self.unlabelled_) is not None:
            data["unlabelled"] = {"images": learned.images, "gamma": learned.gamma}
        return make_record(
            method,
            self.backbone_,
            train_config=self.train_config_ if self.history_.rows else None,
            shots=self._shots,
            seed=self.seed,
            data=data,
            labels=None if labels is None else labels.tolist(),
            temperature=temperature if self.calibration_ is None else self.calibration_.temperature,
            metrics={} if self.calibration_ is None else {"calibration": asdict(self.calibration_)},
        )

    def _labelled(self, images: Any, labels: Any) -> ImageTable:
        """Images with their classes as columns of `predict_proba`."""
        names, numbers = self.method_.class_names, self.record_.labels
        return labelled(images, labels, names, numbers, multi_label=self.record_.multi_label)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags


def load(
    folder: str | Path,
    backbone: Backbone | str | None = None,
    *,
    precision: str | None = None,
    device: str = "cpu",
    allow_download: bool = False,
) -> FewShotClassifier:
    """A fitted classifier from an adapter folder; arguments and errors are those of `daptune.load_adapter`."""
    adapter = load_adapter(folder, backbone, precision=precision, device=device, allow_download=allow_download)
    record = adapter.record
    classifier = FewShotClassifier(**record.settings, precision=adapter.backbone.precision, device=device)
    return classifier.hold(adapter)
