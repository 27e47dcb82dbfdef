"""Search for the settings of a method on a user's own images, with Optuna: never on the test images.

A trial is measured on the validation split if there is one, else by cross-validation of the training images. The
first trial is the defaults, so the result is at least as good there. Trials below the median of the others are pruned
(MedianPruner). The score is the accuracy, or of images with any number of labels the mAP; of several folds it is the
mean by images. The run's folder is updated after every trial:

    RUN/study.journal    Optuna's own record; the same call resumes from it
    RUN/best.json        the best so far, and what it was chosen on
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from daptune import files, locks
from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import Backbone
from daptune.data.cache import Decoder
from daptune.data.fewshot import stratified_folds
from daptune.data.table import ImageTable
from daptune.errors import DataError, Interrupted, MethodError, TrainingError, extra
from daptune.files import difference, told, write
from daptune.train import Progress, TrainConfig
from daptune.train.checkpoint import saving

JOURNAL, BEST = "study.journal", "best.json"
TOKENS = (2, 4, 8, 16)
WIDE = 30.0
"""The learning rate is searched from default / WIDE to default x WIDE."""
WEIGHTS = 100.0
"""The same for loss weights."""
REPORTS = 10
"""Times per training that a trial is compared with the others."""


@dataclass(frozen=True)
class Setting:
    """One searched value: a field of TrainConfig, or of the method's options."""

    name: str
    of_method: bool
    default: float
    low: float = 0
    high: float = 0
    choices: tuple[int, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it is an integer."""
        return isinstance(self.default, int)

    def suggest(self, trial: Any) -> float:
        """Its value in a trial."""
        if self.choices:
            chosen: int = trial.suggest_categorical(self.name, list(self.choices))
            return chosen
        take = trial.suggest_int if self.whole else trial.suggest_float
        found: float = take(self.name, self.low, self.high, log=True)
        return found


@dataclass(frozen=True)
class TrialRow:
    """Result of a trial; numbers start at 1. accuracy is None if it was pruned, and mAP with `multi_label`."""

    number: int
    params: dict[str, Any]
    accuracy: float | None
    nll: float | None
    is_default: bool


@dataclass(frozen=True)
class Search:
    """Settings to search, and `parts`: pairs of images to train and to validate on."""

    classifier: FewShotClassifier
    parts: tuple[tuple[ImageTable, ImageTable], ...]
    settings: tuple[Setting, ...]
    how: str
    fingerprint: str

    @property
    def figure(self) -> str:
        """What the score of a trial is, in JSON."""
        return "mean_average_precision" if self.classifier.multi_label else "accuracy"

    @property
    def training(self) -> TrainConfig:
        """Settings of the training that are not searched."""
        return self.classifier.settings()[2]

    @property
    def defaults(self) -> dict[str, float]:
        """The first trial."""
        return {setting.name: setting.default for setting in self.settings}


def prepare(classifier: FewShotClassifier, table: ImageTable, val: ImageTable | None, *, folds: int = 3) -> Search:
    """A search for an unfitted classifier; options that it was given are kept, the others are searched.

    table  the training images, already drawn        val  if given, measured on instead of cross-validation

    Raises MethodError for a method without gradient steps, DataError for too few images, and for images to validate on
    without any label.
    """
    if val is None:
        parts = tuple(_folds(table, folds, classifier.seed))
        how = f"{len(parts)}-fold cross-validation of {len(table)} images"
    else:
        parts, how = ((table, val),), f"{len(val)} validation images"
    if table.multi_label and not all(held.labels.any() for _, held in parts):
        raise DataError(f"no class is there on the images to validate on ({how}); add images of every class to them")
    fingerprint = (table if val is None else table + val).fingerprint()
    return Search(classifier, parts, tuple(_settings(classifier, parts[0][0])), how, fingerprint)


def run_search(
    search: Search,
    run: Path,
    *,
    trials: int = 30,
    minutes: float | None = None,
    tell: Callable[[TrialRow], None] | None = None,
) -> list[TrialRow]:
    """Run trials until there are `trials` in `run`, or the minutes are over; returns all of them, the best first.

    Raises TrainingError if the folder holds another search, Interrupted when stopped: the same call resumes.
    """
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _alone(run):
        return _search(search, run, optuna, trials, minutes, tell)


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Make and lock the folder; clear what a killed process left. Raises TrainingError if another process searches."""
    with ExitStack() as held:
        with told(lambda why: TrainingError(f"{run} cannot be made ({why}); name another folder with --out")):
            run.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(locks.lock(run / ".lock"))
            except locks.Busy as busy:
                raise TrainingError(f"{busy} is searching in {run}; wait for it, or name another --out") from None
            files.clear(run)
            (run / f"{JOURNAL}.lock").unlink(missing_ok=True)  # Optuna's own, which it would wait for
            if (run / JOURNAL).exists():
                with open(run / JOURNAL, "r+b") as journal:
                    journal.truncate(journal.read().rfind(b"\n") + 1)  # an incomplete last line
        yield


def _search(
    search: Search,
    run: Path,
    optuna: Any,
    trials: int,
    minutes: float | None,
    tell: Callable[[TrialRow], None] | None,
) -> list[TrialRow]:
    backend = optuna.storages.journal.JournalFileBackend(str(run / JOURNAL))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="daptune",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=REPORTS // 2),
    )
    _check(study, search, run)
    for left in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # of a process that was killed
        study.tell(left.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(left.params)
    if not study.trials:
        study.enqueue_trial(search.defaults)
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    begun = len(study.get_trials(states=ended))
    study.sampler = optuna.samplers.TPESampler(seed=search.classifier.seed + begun)  # not the same draws again
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes

    def after(_: Any, trial: Any) -> None:
        if tell is not None:
            tell(_row(trial, search))
        _write_best(search, run, _rows(study, search))

    def objective(trial: Any) -> float:
        done = bool(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))
        return _measure(search, trial, until if done else math.inf)

    try:
        if begun < trials:
            left_seconds = None if minutes is None else max(1e-3, until - time.monotonic())
            study.optimize(objective, n_trials=trials - begun, timeout=left_seconds, callbacks=[after])
    except (Interrupted, KeyboardInterrupt) as error:
        raise Interrupted(f"The search was stopped; what is done is in {run}; repeat the command to resume.") from error
    return _rows(study, search)


def split_params(search: Search, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A trial's values with the given ones, as (options of the method, fields of TrainConfig)."""
    method, train = dict(search.classifier.method_options or {}), dict(search.classifier.train_options or {})
    for setting in search.settings:
        if setting.name in params:
            (method if setting.of_method else train)[setting.name] = params[setting.name]
    return method, train


def _measure(search: Search, trial: Any, until: float) -> float:
    """Validation accuracy or mAP after the last epoch, over all parts. Raises TrialPruned to stop early."""
    optuna = _optuna()
    params = {setting.name: setting.suggest(trial) for setting in search.settings}
    method, train = split_params(search, params)
    right = nll = 0.0
    total = sum(len(val) for _, val in search.parts)
    for number, (part, val) in enumerate(search.parts):
        reported = -1

        def look(state: Progress, number: int = number, val: ImageTable = val, before: float = right) -> None:
            nonlocal reported
            if time.monotonic() > until:
                raise optuna.TrialPruned
            moment = REPORTS * (state.epoch - 1) // state.epochs  # epochs that are done
            if state.val_accuracy is None or moment <= reported:
                return
            reported = moment
            seen = sum(len(other) for _, other in search.parts[:number]) + len(val)
            trial.report((before + state.val_accuracy * len(val)) / seen, number * REPORTS + moment)
            if trial.should_prune():
                raise optuna.TrialPruned

        drawing = {name: getattr(search.training, name) for name in ("sampling", "epoch_shots")}
        alone = {"shots": "all", "ensemble": "none", "calibrate": "none"}
        settings = alone | {"method_options": method, "train_options": drawing | train}
        classifier = FewShotClassifier(**search.classifier.get_params(deep=False) | settings)
        try:
            last = classifier.fit(part, val=val, progress=look).history_.rows[-1]
        except Interrupted:
            raise
        except TrainingError as error:  # a learning rate too high
            raise optuna.TrialPruned(str(error)) from error
        right += (last.val_headline or 0.0) * len(val)
        nll += (last.val_nll or 0.0) * len(val)
    trial.set_user_attr("nll", nll / total)
    return right / total


def _settings(classifier: FewShotClassifier, table: ImageTable) -> Iterator[Setting]:
    method_class, config, given = classifier.settings()
    if classifier.preset is not None:
        raise MethodError("a preset fixes the settings to search; leave out --preset")
    if not isinstance(classifier.backbone, Backbone):  # loaded once for all trials
        classifier.backbone, _ = classifier.loaded_backbone(table, Decoder())
    if not method_class(classifier.backbone, ("one", "two"), config).trainable:
        raise MethodError(
            f"{classifier.method} is not trained by gradient steps, so there is nothing to search; use dapt or coop"
        )
    batches = max(1, len(given.sampler(table.labels, classifier.seed) or table) // given.batch_size)
    train = given.resolved(-(-batches // given.accumulate), method_class.default_lr, text_first=method_class.text_first)
    fixed = set(classifier.train_options or {}) | set(classifier.method_options or {})
    if "steps" in fixed:
        fixed.add("epochs")
    if "lr" not in fixed:
        rate = float(train.lr or 0)
        yield Setting("lr", False, rate, rate / WIDE, rate * WIDE)
    if "epochs" not in fixed:
        epochs = int(train.epochs or 1)
        yield Setting("epochs", False, epochs, max(1, epochs // 4), 2 * epochs)
    if getattr(config, "context_init", ""):
        fixed.add("text_tokens")  # the words fix their number
    for option in (option.name for option in fields(config) if option.name not in fixed):
        value = getattr(config, option)
        if option.endswith("_weight") and isinstance(value, float):
            middle = value or 0.1
            yield Setting(option, True, middle, middle / WEIGHTS, middle * WEIGHTS)
        if option in ("text_tokens", "vision_tokens"):
            yield Setting(option, True, value, choices=tuple(sorted({*TOKENS, value})))


def _folds(table: ImageTable, folds: int, seed: int) -> Iterator[tuple[ImageTable, ImageTable]]:
    if folds < 2:
        raise DataError(f"--folds must be at least 2; found {folds}")
    counts = table.counts()
    fewest = int(counts[counts > 0].min())
    if fewest < 2:
        name = table.class_names[int(np.flatnonzero(counts == fewest)[0])]
        raise DataError(
            f"cross-validation needs 2 images of each class, found 1 of {name!r}; give more --shots, or a val/ folder"
        )
    for train, val in stratified_folds(table, min(folds, fewest), seed):
        yield table.subset(train), table.subset(val)


def _check(study: Any, search: Search, run: Path) -> None:
    classifier = search.classifier
    backbone = classifier.backbone
    identity: dict[str, Any] = {
        "method": classifier.method, "backbone": getattr(backbone, "sha256", str(backbone)), "seed": classifier.seed,
        "images": search.fingerprint, "measured": search.how,
        "options": {**(classifier.method_options or {}), **(classifier.train_options or {})},
        "searched": [setting.name for setting in search.settings],
    }  # fmt: skip
    if classifier.class_names is not None:
        identity["names"] = classifier.class_names
    if classifier.multi_label:
        identity["multi_label"] = True
    now = json.loads(json.dumps(identity, default=str))
    if (there := study.user_attrs.get("identity")) is None:
        study.set_user_attr("identity", now)
    elif found := difference(there, now):
        raise TrainingError(f"{run} holds another search: {found}; name another folder with --out")


def _rows(study: Any, search: Search) -> list[TrialRow]:
    states = ("COMPLETE", "PRUNED")
    rows = [_row(trial, search) for trial in study.get_trials(deepcopy=False) if trial.state.name in states]
    # equal accuracies are common with few images: then the lower loss first
    return sorted(rows, key=lambda row: (-(row.accuracy if row.accuracy is not None else -1), row.nll or 0, row.number))


def _row(trial: Any, search: Search) -> TrialRow:
    complete = trial.state.name == "COMPLETE"
    return TrialRow(
        trial.number + 1,
        dict(trial.params),
        float(trial.value) if complete else None,
        trial.user_attrs.get("nll") if complete else None,
        trial.params == search.defaults,
    )


def _write_best(search: Search, run: Path, rows: list[TrialRow]) -> None:
    if not rows or rows[0].accuracy is None:
        return
    best = rows[0]
    method, train = split_params(search, best.params)
    default = next((row.accuracy for row in rows if row.is_default), None)
    content = {
        "method": search.classifier.method, "method_options": method, "train_options": train,
        search.figure: best.accuracy, f"default_{search.figure}": default, "measured": search.how, "trial": best.number,
        "trials": len(rows),
    }  # fmt: skip
    with saving(run / BEST):
        write(run / BEST, (json.dumps(content, indent=2) + "\n").encode())


def _optuna() -> Any:
    with extra("tune", "a search needs optuna"):
        import optuna
    return optuna
