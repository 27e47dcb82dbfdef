"""Jobs of one training -> their rows of results. Nothing is written here: rows and adapters are handed back as values,
so that a process that is killed, here or on another machine, leaves nothing half done."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daptune.bench import measure
from daptune.bench.datasets import benchmarks, is_path, read_dataset
from daptune.bench.memory import forget_peak, peak_bytes
from daptune.bench.plan import Job
from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import Backbone, load_backbone
from daptune.data.fewshot import sample_fewshot
from daptune.data.loader import ImageLoader
from daptune.data.table import Splits
from daptune.errors import DaptuneError, DataError, Interrupted, MethodError
from daptune.presets import dataset_names, method_names
from daptune.train import TrainConfig, take_best

FORMAT = 1
Hits = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Outcome:
    """A row of results, and the files of its adapter by name."""

    row: dict[str, Any]
    adapter: dict[str, bytes] = field(default_factory=dict)


def run_jobs(
    jobs: Sequence[Job], root: Path, device: str = "cpu", stop: Callable[[], bool] | None = None
) -> list[Outcome]:
    """Train once and measure what each of `jobs` asks for; they share `Job.training`.

    A failure is a row with the status "failed" for each. Only being asked to stop raises (`Interrupted`).
    """
    try:
        return _run(jobs, root, device, stop)
    except Interrupted:
        raise
    except Exception as error:
        known = isinstance(error, DaptuneError)
        return failed(jobs, str(error) if known else f"{type(error).__name__}: {error}")


def failed(jobs: Sequence[Job], reason: str) -> list[Outcome]:
    """The rows of jobs that came to nothing."""
    return [Outcome(_head(job) | {"status": "failed", "error": " ".join(reason.split())}) for job in jobs]


def _run(jobs: Sequence[Job], root: Path, device: str, stop: Callable[[], bool] | None) -> list[Outcome]:
    job = jobs[0]
    forget_peak(device)
    backbone = _backbone(job.backbone, job.precision, device)
    splits, tests = _images(job, root)
    classifier = _classifier(job, splits, backbone)
    began = time.perf_counter()
    classifier.fit(splits, progress=None if stop is None else _ender(stop))
    seconds = time.perf_counter() - began
    method, train = classifier.method_, classifier.train_table_
    hits: Hits = {name: measure.right(method, table) for name, table in tests.present().items() if name != "train"}
    if not hits:
        raise DataError(f"{job.dataset} has no images to measure on; give it a test split")
    targets, skipped = _targets(jobs, classifier, root, hits)
    row: dict[str, Any] = {
        "method_config": classifier.record_.method_config,
        "train_config": classifier.record_.train_config,
        "backbone": classifier.record_.backbone,
        "split_hash": train.fingerprint(),
        "versions": classifier.record_.versions,
        "class_names": list(method.class_names),
        "learned": method.parameter_count,
        "images": len(train),
        "epochs": len(classifier.history_.rows),
        "seconds": round(seconds, 3),
    }
    row["dispersion"] = measure.dispersion(method, train, tests.test) if tests.test is not None else None
    adapter = _adapter(classifier)
    row["selected"] = _selected(classifier, tests)  # changes the method: last
    row["peak_bytes"] = peak_bytes(device)
    hits |= targets
    return [Outcome(_head(own) | {"status": "done"} | row | _scores(own, hits, skipped), adapter) for own in jobs]


def _head(job: Job) -> dict[str, Any]:
    names = ("plan", "experiment", "method", "label", "dataset", "shots", "seed", "options", "train")
    content = asdict(job)
    return {"format": FORMAT, "key": job.key} | {name: content[name] for name in names}


def _scores(job: Job, hits: Hits, skipped: dict[str, str]) -> dict[str, Any]:
    wanted = {"test", "val", *job.targets} | ({"base", "new"} if job.experiment == "base2new" else set())
    own = {name: found for name, found in hits.items() if name in wanted}
    scores: dict[str, Any] = {
        "accuracy": {name: float(found.mean()) for name, found in own.items()},
        "correct": {name: measure.bits(found) for name, found in own.items()},
    }
    left = {name: reason for name, reason in skipped.items() if name in wanted}
    return scores | ({"skipped": left} if left else {})


def _images(job: Job, root: Path) -> tuple[Splits, Splits]:
    """What is learned from (drawn later), and what is measured on; of base-to-new the first half of the classes."""
    splits = read_dataset(job.dataset, root)
    if not len(splits.train):
        raise DataError(f"{job.dataset} has no images to learn from; name it among the targets")
    if job.experiment != "base2new":
        return splits, splits
    base, _ = _halves(splits)
    # the images are those of the draw from all classes, as in CoOp; only then are classes left out
    drawn = sample_fewshot(splits.train, job.shots, job.seed, val=splits.val)
    return replace(_halves(replace(splits, train=drawn.train, val=drawn.val))[0], test=None), base


def _halves(splits: Splits) -> tuple[Splits, Splits]:
    base, new = benchmarks().base_and_new(splits)
    return base, new


def _classifier(job: Job, splits: Splits, backbone: Backbone) -> FewShotClassifier:
    options, training = dict(job.options), dict(job.train)
    if (steps := training.pop("steps", None)) is not None:
        images = int(np.minimum(splits.train.counts(), job.shots).sum())
        batches = max(1, images // int(training.get("batch_size", TrainConfig().batch_size)))
        training["epochs"] = max(1, round(steps / batches))
    preset = job.preset if job.preset is not None and job.method in method_names(job.preset) else None
    benchmark = job.dataset if not is_path(job.dataset) and job.dataset in dataset_names() else None
    if job.preset is not None and job.method == "zero_shot" and benchmark is not None and not options:
        options["dataset"] = benchmark  # its own template, as in the publications
    return FewShotClassifier(
        job.method,
        backbone,
        shots=job.shots,
        seed=job.seed,
        method_options=options,
        train_options=training,
        preset=preset,
        dataset=None if preset is None else benchmark,
    )


def _targets(jobs: Sequence[Job], classifier: FewShotClassifier, root: Path, hits: Hits) -> tuple[Hits, dict[str, str]]:
    """What each of the jobs asks for besides the test images, and why some of it cannot be had."""
    method, job = classifier.method_, jobs[0]
    names = dict.fromkeys(name for own in jobs for name in own.targets)
    tables = {name: read_dataset(name, root).test for name in names}
    found: Hits = {}
    if job.experiment == "base2new":
        tables["new"] = _halves(read_dataset(job.dataset, root))[1].test
        found["base"] = hits["test"]
    skipped = {}
    for name, table in tables.items():
        if table is None:
            raise DataError(f"{name} has no test images to measure on")
        try:
            found[name] = measure.right_on_target(method, table, job.dataset if name == "new" else name)
        except MethodError as error:
            skipped[name] = str(error)
    return found, skipped


def _selected(classifier: FewShotClassifier, tests: Splits) -> dict[str, Any] | None:
    """Accuracy of the epoch that was best on the few validation images; None where there are none, or no epochs."""
    history, method, val = classifier.history_, classifier.method_, classifier.val_table_
    if not history.best or val is None:
        return None
    train = ImageLoader(classifier.train_table_, method.backbone.preprocess, measure.BATCH)
    take_best(method, history, train, ImageLoader(val, method.backbone.preprocess, measure.BATCH))
    tables = {name: table for name, table in tests.present().items() if name != "train"}
    return {"epoch": history.best_epoch} | {name: float(measure.right(method, t).mean()) for name, t in tables.items()}


def _adapter(classifier: FewShotClassifier) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as place:
        folder = classifier.save(Path(place) / "adapter")
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def _ender(stop: Callable[[], bool]) -> Callable[[object], None]:
    def ask(_: object) -> None:
        if stop():
            raise Interrupted("the command that gave out this job has ended")

    return ask


@lru_cache(maxsize=1)
def _backbone(name: str, precision: str, device: str) -> Backbone:
    return load_backbone(name, precision=precision, device=device)
