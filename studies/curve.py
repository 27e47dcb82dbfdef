"""Validation accuracy along a run, on a clock that stands still while it is measured."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from daptune.data import ImageLoader
from daptune.data.loader import Batch
from daptune.train import Progress, evaluate

LOOKS = 50  # of every run, short or long: more looks would find a level sooner by luck alone


class Held:
    """The validation images of a method, decoded once; encoded once, too, where its image tower learns nothing."""

    def __init__(self, method: Any, loader: ImageLoader) -> None:
        with torch.no_grad():
            self._batches = [
                (method.encode(images) if method.trains_on_features else images, labels)
                for images, labels in loader.evaluation()
            ]

    def evaluation(self) -> Iterator[Batch]:
        """As `ImageLoader.evaluation`."""
        yield from self._batches


class Curve:
    """Called with the number of each step that is done; looks LOOKS times a run, and at its end.

    right      images classified right: a number before the first step, and one a look
    steps      done at each look
    seconds    of training by `clock` until each look, preparation included and looks left out
    """

    def __init__(self, right: Callable[[], int], clock: Callable[[], float] = time.perf_counter) -> None:
        self._right, self._clock = right, clock
        self.steps, self.right = [0], [right()]
        self.seconds = [0.0]
        self._began = clock()

    def __call__(self, step: int, steps: int) -> None:
        if step % -(-steps // LOOKS) and step != steps:
            return
        self.seconds.append(self.seconds[-1] + self._clock() - self._began)
        self.steps.append(step)
        self.right.append(self._right())
        self._began = self._clock()

    def progress(self, state: Progress) -> None:
        """What `fit_method` calls after a step."""
        self(state.step, state.steps)


def of_method(method: Any, loader: ImageLoader, clock: Callable[[], float] = time.perf_counter) -> Curve:
    """The curve of a method that is about to be trained, over the images of `loader`."""
    held = Held(method, loader)

    def right() -> int:
        found = evaluate(method, held)  # type: ignore[arg-type]  # it reads `evaluation` alone
        return int((found["probabilities"].argmax(1) == found["labels"]).sum())

    return Curve(right, clock)


def first_at(right: list[float], level: float) -> int | None:
    """The place of the first look, behind the start, that is at the level or above; None where none is."""
    return next((place for place, value in enumerate(right) if place and value >= level), None)


def stays_at(right: list[float], level: float) -> int | None:
    """The place of the first look from which on every look is at the level or above; None where the last is below."""
    below = [place for place, value in enumerate(right) if value < level]
    place = max(below, default=0) + 1
    return place if place < len(right) else None
