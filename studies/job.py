"""One training run of a study: what to run, as data, and the row of results that it leaves."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from daptune import METHODS, TrainConfig, fit_method, load_backbone, read_source
from daptune.data import ImageLoader, ImageTable, sample_fewshot
from daptune.train import evaluate


@dataclass(frozen=True)
class Job:
    """A method with its options on a few-shot draw of a task.

    task     a folder under the tasks' root with train/, val/ and test/; domains are other folders with test/
    train    fields of TrainConfig; "steps" in place of epochs is rounded to whole passes over the images
    score    "val" leaves the test images alone, so that nothing can be selected on them; "test" also measures test
             and domains
    """

    task: str
    method: str
    shots: int
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    score: str = "val"
    domains: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Names the job by its content."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def run(job: Job, root: Path, precision: str = "auto") -> dict[str, Any]:
    """Train and measure; returns a JSON row. `correct` holds, a split, one character an image: 1 right, 0 wrong."""
    method, loader, config, splits = prepared(job, root, precision)
    backbone = method.backbone
    began = time.perf_counter()
    val = None if splits.val is None else sample_fewshot(splits.val, job.shots, job.seed).train
    few_val = None if val is None else ImageLoader(val, backbone.preprocess, 256, workers=0)
    history = fit_method(method, loader, config, val=few_val if job.method == "linear_probe" else None)
    seconds = time.perf_counter() - began
    measured: dict[str, ImageTable | None] = {"val": splits.val}
    if job.score == "test":
        measured["test"] = splits.test
        for domain in job.domains:
            names = splits.train.class_names
            measured[domain] = read_source(root / domain, label_names=names, training=False).test
    accuracy, correct = {}, {}
    for name, table in measured.items():
        if table is not None:
            found = evaluate(method, ImageLoader(table, backbone.preprocess, 256, workers=0))
            right = found["probabilities"].argmax(1) == found["labels"]
            accuracy[name] = float(right.mean())
            correct[name] = "".join("01"[int(r)] for r in right)
    return {
        **asdict(job),
        "key": job.key,
        "accuracy": accuracy,
        "correct": correct,
        "images": len(loader.table),
        "learned": method.parameter_count,
        "seconds": round(seconds, 2),
        "epochs": len(history.rows),
        "last": history.rows[-1].losses if history.rows else None,
        "backbone": backbone.sha256,
        "split": loader.table.fingerprint(),
    }


def prepared(job: Job, root: Path, precision: str = "auto") -> tuple[Any, ImageLoader, TrainConfig, Any]:
    """The method with its first values, the loader of the images drawn, the settings, and the task's splits."""
    backbone, splits = _backbone(precision), _splits(root / job.task)
    drawn = sample_fewshot(splits.train, job.shots, job.seed).train
    config = training(job, len(drawn))
    method_class = METHODS[job.method]
    method = method_class(backbone, splits.train.class_names, method_class.config_class(**job.options), seed=job.seed)
    loader = ImageLoader(
        drawn,
        backbone.preprocess,
        config.batch_size,
        seed=job.seed,
        augment=True,
        shuffle=True,
        workers=0,
        augmentation=config.augmentation,
        views=config.views,
    )
    return method, loader, config, splits


def training(job: Job, images: int) -> TrainConfig:
    """The settings of a run on so many images."""
    settings = dict(job.train)
    batch = settings.get("batch_size", TrainConfig().batch_size)
    if (steps := settings.pop("steps", None)) is not None:
        settings["epochs"] = max(1, round(steps / max(1, images // batch)))
    return TrainConfig(seed=job.seed, **settings)


@lru_cache(maxsize=1)
def _backbone(precision: str) -> Any:
    return load_backbone("tiny", precision=precision)


@lru_cache(maxsize=32)
def _splits(folder: Path) -> Any:
    return read_source(folder)


def mean_and_deviation(values: list[float]) -> str:
    """`12.3 ± 0.4`, in per cent."""
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{100 * np.mean(values):.1f} ± {100 * spread:.1f}"
