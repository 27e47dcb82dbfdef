"""Jobs of one training -> results and adapters, returned as values so that a killed process leaves no partial files."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daptune.adapter.store import adapter_files
from daptune.bench.datasets import read_dataset, read_several
from daptune.bench.measure import dispersion, right_on_target
from daptune.bench.memory import forget_peak, peak_bytes
from daptune.bench.plan import Job
from daptune.bench.results import Result
from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import Backbone, load_backbone
from daptune.data.benchmarks import base_and_new
from daptune.data.fewshot import sample_fewshot
from daptune.data.loader import ImageLoader
from daptune.data.table import ImageTable, Splits
from daptune.errors import DaptuneError, DataError, Interrupted, MethodError
from daptune.evaluate import BATCH, measure
from daptune.measured import Measured
from daptune.presets import EXPERIMENTS, dataset_names, method_names
from daptune.train import TrainConfig, take_best

Hits = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Outcome:
    """A result, and its adapter as file name -> content."""

    result: Result
    adapter: dict[str, bytes] = field(default_factory=dict)


def run_jobs(jobs: Sequence[Job], root: Path, device: str = "cpu") -> list[Outcome]:
    """Train once and measure what each of `jobs` needs; they share `Job.training`.

    A failure gives each job a result with the status "failed". Raises only `Interrupted`.
    """
    try:
        return _run(jobs, root, device)
    except Interrupted:
        raise
    except DaptuneError as error:
        return failed(jobs, str(error))
    except Exception as error:
        return failed(jobs, f"{type(error).__name__}: {error}")


def failed(jobs: Sequence[Job], reason: str) -> list[Outcome]:
    return [Outcome(Result(**head(job), status="failed", error=" ".join(reason.split()))) for job in jobs]


def _run(jobs: Sequence[Job], root: Path, device: str) -> list[Outcome]:
    job = jobs[0]
    forget_peak(device)
    ensemble = "auto" if any(own.ensemble == "auto" for own in jobs) else "none"
    classifier, splits, tests = prepare(job, root, device, ensemble)
    began = time.perf_counter()
    classifier.fit(splits)
    seconds = time.perf_counter() - began
    method, train, record = classifier.method_, classifier.train_table_, classifier.record_
    joined, answers = method.ensemble, {}
    for kind in dict.fromkeys(own.ensemble for own in jobs):
        method.ensemble = joined if kind == "auto" else None
        answers[kind] = _answer([own for own in jobs if own.ensemble == kind], classifier, tests, root)
    method.ensemble = None  # `_selected` changes the method
    same: dict[str, Any] = {
        "method_config": record.method_config,
        "train_config": record.train_config,
        "backbone": record.backbone,
        "split_hash": train.fingerprint(),
        "versions": record.versions,
        "class_names": tuple(method.class_names),
        "learned": method.parameter_count,
        "images": len(train),
        "epochs": len(classifier.history_.rows),
        "seconds": round(seconds, 3),
        # of features by class, so of images with one
        "dispersion": dispersion(method, train, tests.test) if tests.test is not None and not job.multi_label else None,
        "selected": _selected(classifier, tests),  # last, because it changes the method
        "peak_bytes": peak_bytes(device),
    }
    return [answers[own.ensemble](own, same) for own in jobs]


def _answer(
    jobs: Sequence[Job], classifier: FewShotClassifier, tests: Splits, root: Path
) -> Callable[[Job, dict[str, Any]], Outcome]:
    """Measure a trained method; returns how the outcome of each of `jobs` follows from what they share."""
    measured = {name: measure(classifier.method_, table) for name, table in _measured(tests).items()}
    if not measured:
        raise DataError(f"{jobs[0].dataset} has no images to measure on; add a test split")
    adapter = _adapter(classifier)
    if jobs[0].multi_label:
        several = _of_several(jobs[0], measured)
        return lambda job, same: Outcome(Result(**head(job), **same, **several), adapter)
    hits: Hits = {name: found.correct for name, found in measured.items()}
    figures: dict[str, Any] = {
        "nll": {name: found.nll for name, found in measured.items()},
        "ece": {name: found.calibration_error for name, found in measured.items()},
    }
    targets, skipped = _targets(jobs, classifier, root, hits)
    return lambda job, same: Outcome(
        Result(**head(job), **same, **figures, **_scores(job, hits | targets, skipped)), adapter
    )


def prepare(
    job: Job, root: Path, device: str = "cpu", ensemble: str = "none"
) -> tuple[FewShotClassifier, Splits, Splits]:
    """The unfitted classifier, the splits it samples its training images from, and the splits to measure on."""
    splits, tests = _images(job, root)  # before the backbone, which may be a long download
    return _classifier(job, splits, _backbone(job.backbone, job.precision, device), ensemble), splits, tests


def head(job: Job) -> dict[str, Any]:
    """The fields of a result that identify its job."""
    names = ("key", "plan", "experiment", "method", "label", "dataset", "shots", "seed", "options", "train", "ensemble")
    return {name: getattr(job, name) for name in names}


def _scores(job: Job, hits: Hits, skipped: dict[str, str]) -> dict[str, Any]:
    wanted = {"test", "val", *job.targets} | ({"base", "new"} if job.experiment == "base2new" else set())
    own = {name: found for name, found in hits.items() if name in wanted}
    return {
        "accuracy": {name: float(found.mean()) for name, found in own.items()},
        "correct": {name: "".join("01"[int(hit)] for hit in found) for name, found in own.items()},
        "skipped": {name: reason for name, reason in skipped.items() if name in wanted},
    }


def _of_several(job: Job, measured: dict[str, Measured]) -> dict[str, Any]:
    """mAP and negative log-likelihood of images with any number of labels. Raises DataError for images without any."""
    if bare := [name for name, found in measured.items() if not found.labels.any()]:
        raise DataError(f"{job.dataset}: no class is there on the {bare[0]} images; add images of every class to them")
    return {
        "mean_average_precision": {name: found.headline for name, found in measured.items()},
        "nll": {name: found.nll for name, found in measured.items()},
    }


def _measured(tests: Splits) -> dict[str, ImageTable]:
    return {name: table for name, table in tests.present().items() if name != "train"}


def _images(job: Job, root: Path) -> tuple[Splits, Splits]:
    """Splits to train on, before few-shot sampling, and splits to measure on; base-to-new: the base classes."""
    splits = read_several(job.dataset) if job.multi_label else read_dataset(job.dataset, root)
    if not len(splits.train):
        raise DataError(f"{job.dataset} has no training images; use it as one of the targets")
    if job.score == "val":
        return splits, replace(splits, test=None)
    if job.experiment != "base2new":
        return splits, splits
    base, _ = base_and_new(splits)
    # as in CoOp, sample from all classes first and then drop the new ones
    drawn = sample_fewshot(splits.train, job.shots, job.seed, val=splits.val)
    return replace(base_and_new(replace(splits, train=drawn.train, val=drawn.val))[0], test=None), base


def _classifier(job: Job, splits: Splits, backbone: Backbone, ensemble: str) -> FewShotClassifier:
    options, training = dict(job.options), dict(job.train)
    if (steps := training.pop("steps", None)) is not None:
        images = int(np.minimum(splits.train.counts(), job.shots).sum())
        if job.multi_label:  # an image counts for each of its labels
            images = len(sample_fewshot(splits.train, job.shots, job.seed).train)
        batches = max(1, images // int(training.get("batch_size", TrainConfig().batch_size)))
        training["epochs"] = max(1, round(steps / batches))
    preset = job.preset if job.preset is not None and job.method in method_names(job.preset) else None
    benchmark = job.dataset if job.dataset in dataset_names() else None
    if job.preset is not None and job.method == "zero_shot" and benchmark is not None and not options:
        options["dataset"] = benchmark  # the data set's template, as in the publications
    return FewShotClassifier(
        job.method,
        backbone,
        shots=job.shots,
        seed=job.seed,
        method_options=options,
        train_options=training,
        ensemble=ensemble,
        calibrate="none",
        multi_label=job.multi_label,
        preset=preset,
        dataset=None if preset is None else benchmark,
        experiment=EXPERIMENTS[0] if preset is None else job.settings,
    )


def _targets(jobs: Sequence[Job], classifier: FewShotClassifier, root: Path, hits: Hits) -> tuple[Hits, dict[str, str]]:
    """Hits on the targets of the jobs, and the reasons why some targets cannot be measured."""
    method, job = classifier.method_, jobs[0]
    names = dict.fromkeys(name for own in jobs for name in own.targets)
    tables = {name: read_dataset(name, root).test for name in names}
    found: Hits = {}
    if job.experiment == "base2new":
        tables["new"] = base_and_new(read_dataset(job.dataset, root))[1].test
        found["base"] = hits["test"]
    skipped = {}
    for name, table in tables.items():
        if table is None:
            raise DataError(f"{name} has no test images to measure on")
        try:
            source = job.dataset if name == "new" else name
            found[name] = right_on_target(method, table, source, among_all=job.among == "all")
        except MethodError as error:
            skipped[name] = str(error)
    return found, skipped


def _selected(classifier: FewShotClassifier, tests: Splits) -> dict[str, Any] | None:
    """Accuracy, or mAP, of the epoch that was best on the validation images; None without such images or epochs."""
    history, method, val = classifier.history_, classifier.method_, classifier.val_table_
    if not history.best or val is None:
        return None
    train = ImageLoader(classifier.train_table_, method.backbone.preprocess, BATCH)
    take_best(method, history, train, ImageLoader(val, method.backbone.preprocess, BATCH))
    found = {name: measure(method, table).headline for name, table in _measured(tests).items()}
    return {"epoch": history.best_epoch} | found


def _adapter(classifier: FewShotClassifier) -> dict[str, bytes]:
    return adapter_files(classifier.method_, classifier.record_)


@lru_cache(maxsize=1)
def _backbone(name: str, precision: str, device: str) -> Backbone:
    return load_backbone(name, precision=precision, device=device)
