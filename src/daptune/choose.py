"""Compare methods on labelled images by cross-validation, and choose one of them; never on test images.

All methods see the same folds. Those that only read CLIP's own image features share one pass over the images: the
evaluation transform and up to `CROPS` random crops. A closed-form method or a small training then takes seconds.
Methods that learn in the image tower read the images in each fit.

The rule counts the standard error. For each method, the difference to the most accurate one is taken image by image;
among those within `ERRORS` standard errors, the first in the order of `CANDIDATES` is chosen. The first of all is the
prior choice: with the ensemble the best on average over the tasks of docs/methods, it stands where images are too few
to tell, and with one image a class, where none can be held out. The others follow from cheap to costly.

Related: the one-standard-error rule of Breiman et al., Classification and Regression Trees (1984), section 3.4.3.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daptune.clip.backbone import Backbone
from daptune.data.cache import Decoder
from daptune.data.fewshot import stratified_folds
from daptune.data.loader import ImageLoader
from daptune.data.table import ImageTable
from daptune.errors import DaptuneError, DataError, Interrupted, MethodError, TrainingError
from daptune.evaluate import evaluate, join_ensemble
from daptune.files import read_json, write
from daptune.methods import Method, MethodConfig
from daptune.names import ClassNames
from daptune.train import Progress, TrainConfig, fit_method
from daptune.train.checkpoint import saving
from daptune.train.features import MOST_BYTES, EncodedImages, EncodedPart
from daptune.train.joining import weigh_classes
from daptune.train.parallel import Ranks
from daptune.train.run import check_unused

CHOICE = "choice.json"
"""In the folder of a run."""
AUTO = "auto"
"""The name that asks for a choice where a method is named."""
CANDIDATES = (
    "taskres", "clip_adapter", "lp_pp", "zero_shot", "prototype", "tip_adapter", "linear_probe", "coop", "coop_vpt",
    "dapt",
)  # fmt: skip
"""What is tried, in order of preference, which is also the order of the trials."""
ERRORS = 2.0
FOLDS = 5
JUDGED = 150
"""Folds are drawn anew and tried again until there are about this many held-out predictions."""
MOST_FITS = 10
"""... but with at most this many fits of a method."""
CROPS = 4
SHARE = 0.25
"""Of the time for everything, for crops."""
FIRST_LOOK = 5
"""Steps of the first fit after which its time is estimated."""

Floats = NDArray[np.float64]
Settings = tuple[type[Method], MethodConfig, TrainConfig]


@dataclass(frozen=True, eq=False)
class Row:
    """A method's held-out figures, image by image; or a note that says why there are none.

    correct         (n,) share of the repeats in which the image was classified right
    log_likelihood  (n,) mean over the repeats of log p(true class), in nats
    seconds         of all fits and measurements, without the pass over the images that methods share
    """

    method: str
    correct: Floats | None = None
    log_likelihood: Floats | None = None
    seconds: float = 0.0
    note: str = ""

    @property
    def tried(self) -> bool:
        return self.correct is not None

    @cached_property
    def accuracy(self) -> float:
        """Share of held-out images that are classified right; NaN if it was not tried."""
        return math.nan if self.correct is None else float(self.correct.mean())

    @cached_property
    def error(self) -> float:
        """Standard error of the accuracy over images."""
        return math.nan if self.correct is None else _standard_error(self.correct)

    @cached_property
    def nll(self) -> float:
        """Mean negative log-likelihood of the true class, in nats."""
        return math.nan if self.log_likelihood is None else -float(self.log_likelihood.mean())

    def behind(self, best: "Row") -> tuple[float, float]:
        """How much less accurate it is than another, over the same images: the mean and its standard error."""
        if self.correct is None or best.correct is None:
            return math.nan, math.nan
        gap = best.correct - self.correct
        return float(gap.mean()), _standard_error(gap)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The rows in the order of the trials, and how they were measured."""

    rows: tuple[Row, ...]
    how: str

    @cached_property
    def best(self) -> Row | None:
        """The most accurate; of equals, the one with the higher likelihood. None if nothing was tried."""
        tried = [row for row in self.rows if row.tried]
        return max(tried, key=lambda row: (row.accuracy, -row.nll)) if tried else None

    @cached_property
    def chosen(self) -> Row:
        """By the rule of the module: the first within `ERRORS` standard errors of the best."""
        if self.best is None:
            return self.rows[0]
        for row in self.rows:
            gap, error = row.behind(self.best)
            if row.tried and gap <= ERRORS * error:
                return row
        return self.best

    @property
    def why(self) -> str:
        """The choice and its reason, one line."""
        name, best = self.chosen.method, self.best
        if best is None:
            return f"{name}: the prior choice, since no method could be tried ({self.rows[0].note})"
        if self.chosen is best:
            above = " and no method before it is within reach" if self.rows[0] is not best else ""
            return f"{name}: the most accurate of those tried{above}"
        gap, error = self.chosen.behind(best)
        return (
            f"{name}: first in the order of preference among those within {ERRORS:g} standard errors of the best "
            f"({best.method}, {100 * gap:.1f} ± {100 * error:.1f} points more)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, shares from 0 to 1; `behind` is the 95 % interval of the difference to the best."""
        rows = []
        for row in self.rows:
            about: dict[str, Any] = {"method": row.method}
            if row.tried and self.best is not None:
                gap, error = row.behind(self.best)
                about |= {"accuracy": row.accuracy, "standard_error": row.error, "nll": row.nll}
                about |= {"difference": -gap, "interval": [-gap - 1.96 * error, -gap + 1.96 * error]}
                about["seconds"] = round(row.seconds, 2)
            rows.append(about | ({"note": row.note} if row.note else {}))
        best = None if self.best is None else self.best.method
        return {"measured": self.how, "best": best, "rows": rows}

    def choice(self) -> dict[str, Any]:
        """`to_json` with the chosen `method` and `why`."""
        return {"method": self.chosen.method, "why": self.why} | self.to_json()


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
        """Whether any image can be held out: one alone in its class cannot."""
        return self._most > 1

    def run(self) -> Comparison:
        """Try the methods in turn. Raises Interrupted when stopped; another error of a method is noted in its row."""
        if not self.possible:
            rows = tuple(Row(name, note="one image a class: none can be held out") for name in self.recipes)
            return Comparison(rows, "one image a class")
        began = time.monotonic()
        self._until = math.inf if self.minutes is None else began + 60 * self.minutes
        count = min(FOLDS, self._most) if self.folds is None else self.folds
        judged = int((self.table.counts()[self.table.labels] > 1).sum())
        repeats = max(1, min(math.ceil(JUDGED / judged), MOST_FITS // count))
        self._splits = self.folds_of(count, repeats)
        self._encode()
        encoding = time.monotonic() - began
        rows = tuple(self._try(name, recipe) for name, recipe in self.recipes.items())
        how = f"{count}-fold cross-validation of {judged} images" + (f", {repeats} times" if repeats > 1 else "")
        if judged < len(self.table):
            how += f" ({len(self.table) - judged} more are alone in their class and never held out)"
        return Comparison(rows, f"{how}; image features took {encoding:.1f} s")

    def folds_of(self, count: int, repeats: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
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
        size = len(self.table)
        right, likely, times = np.zeros(size), np.zeros(size), np.zeros(size)
        try:
            for number, (train, held) in enumerate(self._splits):
                self._say(f"{name}, fit {number + 1} of {len(self._splits)}")
                found = self._fit(recipe, train, held, first=number == 0)
                chance = found.probabilities[np.arange(len(held)), found.labels].astype(np.float64)
                right[held] += found.correct
                likely[held] += np.log(np.maximum(chance, np.finfo(np.float32).tiny))
                times[held] += 1
                if number == 0:
                    self._check((time.monotonic() - began) * (len(self._splits) - 1))
        except _TooSlow as slow:
            return Row(name, note=str(slow), seconds=time.monotonic() - began)
        except Interrupted:
            raise
        except DaptuneError as error:
            return Row(name, note=f"failed: {error}", seconds=time.monotonic() - began)
        rows = times > 0
        return Row(name, right[rows] / times[rows], likely[rows] / times[rows], time.monotonic() - began)

    def _fit(self, recipe: Settings, rows: NDArray[np.int64], held: NDArray[np.int64], *, first: bool) -> Any:
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
        started = 0.0

        def look(state: Progress) -> None:
            nonlocal started
            if state.step == 1:  # it also pays for what is done once
                started = time.monotonic()
            if state.step == FIRST_LOOK:
                step = (time.monotonic() - started) / (FIRST_LOOK - 1)
                self._check(step * (state.steps * len(self._splits) - FIRST_LOOK))

        fit_method(method, here, train, val=val, progress=look if first else None)
        if self.ensemble and method.joins_ensemble:
            join_ensemble(method, here, val, self.templates)
        return evaluate(method, there)

    def _check(self, needed: float) -> None:
        left = self._until - time.monotonic()
        if needed > left:
            raise _TooSlow(f"needs {needed:.0f} s more, {max(left, 0.0):.0f} s left")

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


def choose(trials: Callable[[], Trials], run_dir: Path | None = None, *, resume: bool = False) -> dict[str, Any]:
    """Run the trials and choose, as JSON values: `method`, `why` and the table of what was tried.

    The choice is kept in `run_dir`, and taken from there where a run is resumed: another look at the clock could end
    in another choice. Raises TrainingError for a folder that holds another run.
    """
    if resume and run_dir is not None and (run_dir / CHOICE).is_file():
        return _read(run_dir / CHOICE)
    check_unused(run_dir, resume=resume)
    choice = trials().run().choice()
    if run_dir is not None:
        with saving(run_dir):
            run_dir.mkdir(parents=True, exist_ok=True)
            write(run_dir / CHOICE, (json.dumps(choice, indent=2) + "\n").encode())
    return choice


def _read(path: Path) -> dict[str, Any]:
    try:
        choice: dict[str, Any] = read_json(path)
        if choice["method"] in CANDIDATES and isinstance(choice["rows"], list):
            return choice
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise TrainingError(f"{path} is damaged; train again in another folder, without --resume")


def check_auto(minutes: float, method_options: object, start_from: object, preset: object) -> None:
    """Raise DaptuneError for settings that a choice among methods cannot have."""
    own = {"method_options (--set)": method_options, "start_from (--from)": start_from, "preset": preset}
    if given := [name for name, value in own.items() if value]:
        raise MethodError(f"{given[0]} belongs to one method; leave it out with method='auto', or name the method")
    if Ranks().size > 1:
        raise TrainingError("method='auto' chooses in one process; name a method to train with several")
    check_limits(minutes, None)


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf
