"""Cross-validation of methods on labelled images; never on test images.

All methods see the same folds. Those that only read CLIP's own image features share one pass over the images: the
evaluation transform and up to `CROPS` random crops. A closed-form method or a small training then takes seconds.
Methods that learn in the image tower read the images in each fit.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from daptune.choose.comparison import Comparison, Row
from daptune.choose.held_out import Hits, Rankings, Rows
from daptune.clip.backbone import Backbone
from daptune.data.cache import Decoder
from daptune.data.fewshot import can_be_held, stratified_folds
from daptune.data.loader import ImageLoader
from daptune.data.table import ImageTable
from daptune.errors import DaptuneError, DataError, Interrupted
from daptune.evaluate import evaluate, join_ensemble
from daptune.measured import Measured
from daptune.methods import Method, MethodConfig
from daptune.names import ClassNames
from daptune.train import Progress, TrainConfig, fit_method
from daptune.train.features import MOST_BYTES, EncodedImages, EncodedPart
from daptune.train.weighing import weigh_classes

FOLDS = 5
JUDGED = 150
"""Folds are drawn anew and tried again until there are about this many held-out predictions."""
MOST_FITS = 10
"""... but with at most this many fits of a method."""
CROPS = 4
SHARE = 0.25
"""Of the time for everything, for crops."""
FIRST_LOOK = 5
"""Progress reports of the first fit after which its time is estimated, by the fastest step."""

Settings = tuple[type[Method], MethodConfig, TrainConfig]


@dataclass(eq=False)
class Trials:
    """Cross-validation of methods on the labelled images of `table`.

    recipes    class, options and training of each method, in the order of the trials
    val        validation images that methods may use in training, as in the final fit; none is judged by them
    names      what prompts call the classes; None: the table's own
    folds      None: FOLDS, or the images of the largest class if it has fewer
    minutes    time limit, from the first pass over the images; None: none
    ensemble   whether trained methods are joined by the ensemble where they have one
    tell       called with a line on what is being done

    Raises DataError for a number of folds that no class can be divided into.
    """

    recipes: Mapping[str, Settings]
    table: ImageTable
    backbone: Backbone
    val: ImageTable | None = None
    names: ClassNames | None = None
    folds: int | None = None
    seed: int = 1
    minutes: float | None = None
    ensemble: bool = True
    templates: Sequence[str] = ()
    class_weight: str | Mapping[Any, float] | None = None
    batch_size: int = 64
    decoder: Decoder | None = None
    tell: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        check_limits(self.minutes, self.folds)
        self._most = int(self.table.counts().max())
        if self.folds is not None and self.folds > max(self._most, 2):
            raise DataError(
                f"--folds is {self.folds}, but no class has more than {self._most} images; use at most {self._most}"
            )
        if self.decoder is None:
            self.decoder = Decoder()

    @property
    def possible(self) -> bool:
        """Whether any image of a class can be held out: one alone in its class cannot."""
        held = can_be_held(self.table)
        return bool(self.table.labels[held].any() if self.table.multi_label else held.any())

    def run(self) -> Comparison:
        """Try the methods in turn. Raises Interrupted when stopped; another error of a method is noted in its row."""
        if not self.possible:
            rows = tuple(Row(name, note="one image a class: none can be held out") for name in self.recipes)
            return Comparison(rows, "one image a class")
        began = time.monotonic()
        self._until = math.inf if self.minutes is None else began + 60 * self.minutes
        count = min(FOLDS, self._most) if self.folds is None else self.folds
        judged = sum(len(held) for _, held in self.folds_of(count, 1))
        repeats = max(1, min(math.ceil(JUDGED / judged), MOST_FITS // count))
        self._splits = self.folds_of(count, repeats)
        self._encode()
        encoding = time.monotonic() - began
        rows = tuple(self._try(name, recipe) for name, recipe in self.recipes.items())
        how = f"{count}-fold cross-validation of {judged} images" + (f", {repeats} times" if repeats > 1 else "")
        if judged < len(self.table):
            how += f" ({len(self.table) - judged} more are alone in their class and never held out)"
        return Comparison(rows, f"{how}; image features took {encoding:.1f} s")

    def folds_of(self, count: int, repeats: int) -> list[tuple[Rows, Rows]]:
        """Rows to train on and rows to measure on, for each fit of a method."""
        seeds = range(self.seed, self.seed + repeats)
        return [fold for seed in seeds for fold in stratified_folds(self.table, count, seed)]

    def _encode(self) -> None:
        """Encode the evaluation transform, and as many crops as `SHARE` of the time allows."""
        self._say("encoding images")
        train = next(iter(self.recipes.values()))[2]
        encode, device = self.backbone.clip.encode_image, self.backbone.device
        began = time.monotonic()
        self._features = EncodedImages(self._loader(self.table, train, training=True), encode, device)
        size = self._features.encoded()[0].numel() * 4
        now = time.monotonic()
        crops = min(CROPS, MOST_BYTES / size, SHARE * (self._until - now) / max(now - began, 1e-6))
        self._crops = max(0, int(crops))
        for view in range(self._crops):
            self._say(f"encoding crops {view + 1} of {self._crops}")
            self._features.encoded(view)
        self._held = None
        if self.val is not None:
            self._held = EncodedImages(self._loader(self.val, train, training=False), encode, device)

    def _try(self, name: str, recipe: Settings) -> Row:
        began = time.monotonic()
        if began >= self._until:
            return Row(name, note="not tried: no time left")
        table = self.table
        seen: Hits | Rankings = Rankings(table.labels) if table.multi_label else Hits(len(table))
        try:
            for number, (train, held) in enumerate(self._splits):
                self._say(f"{name}, fit {number + 1} of {len(self._splits)}")
                seen.add(held, self._fit(recipe, train, held, first=number == 0))
                if number == 0:
                    self._check((time.monotonic() - began) * (len(self._splits) - 1))
        except _TooSlow as slow:
            return Row(name, note=str(slow), seconds=time.monotonic() - began)
        except Interrupted:
            raise
        except DaptuneError as error:
            return Row(name, note=f"failed: {error}", seconds=time.monotonic() - began)
        return seen.row(name, time.monotonic() - began)

    def _fit(self, recipe: Settings, rows: Rows, held: Rows, *, first: bool) -> Measured:
        """Train on some rows and measure on others. Raises _TooSlow if all fits would take longer than is left."""
        method_class, config, train = recipe
        names = self.table.class_names if self.names is None else self.names
        method = method_class(self.backbone, names, config, seed=self.seed)
        weigh_classes(method, self.class_weight, self.table.subset(rows))
        shared = method.encodes_plainly and (method.trains_on_features or not method.trainable)
        here, there = (
            self._loader(self.table.subset(part), train, training=learns, crops=self._crops if shared else None)
            for part, learns in ((rows, True), (held, False))
        )
        val: ImageLoader | None = None
        if shared:
            here, there = EncodedPart(self._features, rows, here), EncodedPart(self._features, held, there)
            val = self._held
        elif self.val is not None:
            val = self._loader(self.val, train, training=False)
        reports: list[tuple[int, float]] = []

        def look(state: Progress) -> None:
            if state.epoch == 0:  # the text prompt alone, much faster
                return
            reports.append((state.step, time.monotonic()))
            if len(reports) == FIRST_LOOK:
                fastest = min((late - soon) / (end - start) for (start, soon), (end, late) in pairwise(reports))
                self._check(fastest * (state.steps * len(self._splits) - state.step))

        fit_method(method, here, train, val=val, progress=look if first else None)
        if self.ensemble and method.joins_ensemble and method.sigmoids is None:
            join_ensemble(method, here, val, self.templates)
        return evaluate(method, there)

    def _check(self, needed: float) -> None:
        left = self._until - time.monotonic()
        if needed > left:
            raise _TooSlow(f"not tried: {needed:.0f} s needed, {max(left, 0.0):.0f} s left")

    def _loader(
        self, table: ImageTable, config: TrainConfig, *, training: bool, crops: int | None = None
    ) -> ImageLoader:
        """Batches of a part. `crops`: the number of views that are encoded; None: those of the config."""
        config = replace(config, views=crops or config.views)
        return config.loader(
            table,
            self.backbone,
            config.batch_size if training else self.batch_size,
            seed=self.seed,
            training=training,
            augment=training and crops != 0,
            decoder=self.decoder,
        )

    def _say(self, text: str) -> None:
        if self.tell is not None:
            self.tell(text)


class _TooSlow(Exception):
    """A method does not fit into the time that is left."""


def check_limits(minutes: float | None, folds: int | None) -> None:
    """Raises DataError unless minutes is above 0 and folds at least 2; None stands for the default."""
    if minutes is not None and not minutes > 0:
        raise DataError(f"--minutes must be above 0; found {minutes:g}")
    if folds is not None and folds < 2:
        raise DataError(f"--folds must be at least 2; found {folds}")
