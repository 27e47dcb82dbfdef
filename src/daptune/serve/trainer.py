"""Training of lessons: one at a time in a background thread, with events for every step."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import Backbone
from daptune.data.cache import Decoder
from daptune.data.sources import table_from_lists
from daptune.data.table import ImageTable
from daptune.errors import DaptuneError, Interrupted
from daptune.methods import METHODS, make_config
from daptune.serve.contradictions import contradictions
from daptune.serve.lessons import Lesson, Lessons
from daptune.serve.limits import Refused
from daptune.serve.pool import AdapterPool
from daptune.train import Progress

STEPS = 60  # training steps of a lesson with any number of images: few, because a person waits for the result
BATCH = 32
TEXT_ALONE = "coop"
_EVERY = 0.1  # seconds between two reports
logger = logging.getLogger("daptune")


class Training:
    """A waiting, running or finished training. `events` only grows; the last event of a finished one is its outcome."""

    def __init__(self, lesson: str) -> None:
        self.lesson = lesson
        self.events: list[dict[str, Any]] = [{"type": "waiting"}]
        self.over = threading.Event()
        self.stop = threading.Event()

    @classmethod
    def finished(cls, lesson: str, events: list[dict[str, Any]]) -> Self:
        """One of an earlier run of the server."""
        job = cls(lesson)
        job.events = events
        job.over.set()
        return job


class Trainer:
    """Trains lessons and adds the adapters to the pool under the lessons' names."""

    def __init__(self, pool: AdapterPool, lessons: Lessons) -> None:
        self.lessons, self._pool = lessons, pool
        self._jobs: dict[str, Training] = {}
        self._starting = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "daptune-train")
        self.closing = False

    def start(self, name: str) -> Training:
        """Train on the current images of the lesson.

        Raises `Refused`: 404 no such lesson, 409 already training, 422 too few classes or a class without images.
        """
        lesson = self.lessons.get(name)
        if len(lesson.classes) < 2:
            raise Refused(422, f"expected two or more classes, found {len(lesson.classes)}; add a class.")
        if empty := [each.name for each in lesson.classes if not each.images]:
            raise Refused(422, f"the class {empty[0]!r} has no image; add a few, or remove the class.")
        with self._starting:
            self.check_idle(name)
            if self.closing:
                raise Refused(503, "the server is stopping.", retry_after=5)
            job = self._jobs[name] = Training(name)
            self._thread.submit(self._work, job, lesson)
        return job

    def running(self, name: str) -> bool:
        """Whether a training of the lesson is waiting or running."""
        return name in self._jobs and not self._jobs[name].over.is_set()

    def check_idle(self, name: str) -> None:
        """Raise `Refused` 409 during a training of the lesson."""
        if self.running(name):
            raise Refused(409, f"{name!r} is being trained; wait for it, or stop it.")

    def job(self, name: str) -> Training:
        """The latest training of a lesson, also of earlier runs of the server. Raises `Refused` 404."""
        if name in self._jobs:
            return self._jobs[name]
        if events := self.lessons.events(name):
            return Training.finished(name, events)
        raise Refused(404, f"{name!r} was not trained yet.")

    def told(self, name: str) -> bool:
        """Whether there is a `job` of the lesson. Raises `Refused` 404 without the lesson."""
        return name in self._jobs or bool(self.lessons.events(name))

    def delete(self, name: str) -> None:
        """Remove a lesson, its images and what is known of its trainings. Raises `Refused` 404, 409."""
        self.check_idle(name)
        self.lessons.delete(name)
        self._jobs.pop(name, None)

    def close(self) -> None:
        """Stop all trainings after the current step; images and earlier adapters are kept."""
        with self._starting:
            self.closing = True
        for job in list(self._jobs.values()):
            job.stop.set()
        self._thread.shutdown()

    def _work(self, job: Training, lesson: Lesson) -> None:
        try:
            classifier = self._fit(job, lesson)
            if job.stop.is_set():
                raise Interrupted("stopped")
            folder = self.lessons.folder / lesson.name
            classifier.save(folder)
            self._pool.add(folder, lesson.name, replace=True)
            self._pool.open(lesson.name)
            last = {"type": "done", "adapter": lesson.name}
            self.lessons.keep_events(lesson.name, [*job.events, last])
        except Interrupted:
            last = {"type": "stopped"}
        except DaptuneError as error:
            last = {"type": "failed", "error": str(error)}
        except Exception as error:
            logger.exception("training %s failed", lesson.name)
            last = {"type": "failed", "error": f"internal error in daptune: {type(error).__name__}: {error}"}
        job.events.append(last)
        job.over.set()

    def _fit(self, job: Training, lesson: Lesson) -> FewShotClassifier:
        """An adapter by `method_for` and the defaults of `FewShotClassifier` but for the steps, with classes in the
        lesson's order."""
        decoder, backbone = Decoder(), self._pool.backbone
        table, ids = self._table(lesson)
        found = contradictions(backbone, table, decoder)
        job.events.append({"type": "check", "contradictions": [each.to_json(table.class_names, ids) for each in found]})
        options = {"steps": STEPS, "batch_size": BATCH}
        classifier = FewShotClassifier(method_for(backbone), backbone, train_options=options)
        return classifier.fit(table, progress=_reporter(job), decoder=decoder)

    def _table(self, lesson: Lesson) -> tuple[ImageTable, list[str]]:
        """The pictures of a lesson and their ids, in the same order."""
        pairs = [(each.name, image) for each in lesson.classes for image in each.images]
        paths = [self.lessons.image(lesson.name, label, image) for label, image in pairs]
        names = [each.name for each in lesson.classes]
        return table_from_lists(paths, [label for label, _ in pairs], label_names=names), [image for _, image in pairs]


def method_for(backbone: Backbone) -> str:
    """The default method, or where the towers lack what it needs, as on a residual network, one of text prompts alone:
    the page has no choice of methods."""
    usual = FewShotClassifier().method
    lacking = METHODS[usual].lacking(backbone.clip, make_config(usual, {}))
    return TEXT_ALONE if lacking else usual


def _reporter(job: Training) -> Callable[[Progress], None]:
    """A callback that turns steps into at most ten events per second, and stops the run on request."""
    told = 0.0

    def report(progress: Progress) -> None:
        nonlocal told
        if job.stop.is_set():
            raise Interrupted("stopped")
        now = time.monotonic()
        if now - told < _EVERY and progress.step < progress.steps:
            return
        told = now
        same = {name: getattr(progress, name) for name in ("step", "steps", "accuracy", "seconds_left")}
        job.events.append({"type": "progress", "loss": progress.losses["total"], **same})

    return report
