"""`SetPredictor`: answers to a set of images at once, by TransCLIP on the probabilities of an adapter.

An answer depends on the whole set. So images are read to the end before the first is answered, and what is in memory
grows with their number: 16 bytes for each image and class.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from daptune.clip.preprocess import Preprocess
from daptune.data.cache import Decoder
from daptune.data.loader import ImageLoader
from daptune.data.stream import Decoded, Item
from daptune.data.table import ImageSource, ImageTable, MadeImage
from daptune.errors import DataError
from daptune.measured import Measured
from daptune.methods.options import parse_options
from daptune.predict.predictor import Answers, Predictor
from daptune.transductive import Labelled, Transduced, TransductiveConfig, transduce

if TYPE_CHECKING:
    from daptune.predict.adapted import AdapterPredictor

LEAST = 8
"""Images of a set; fewer are answered one by one."""
MOST_SHARES = 1 << 28
"""Of images x classes: a set of 100,000 images and 1,000 classes has a third of it."""
STRANGE, MANY_STRANGE = 0.05, 0.25
"""Images with `known` up to the first are unlike the training images; a share of them that is worth a warning."""
NO_SETS = (
    "--sets compares with probabilities of single images, and those of a set are surer; leave out --sets, or "
    "--transductive"
)
_log = logging.getLogger("daptune")
_Batch = Decoded[NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known of the images of a set, in order: batches without pixels, and for the b readable images together

    probabilities (b, C) and unit features (b, D), float32; known (b,), or None.
    """

    batches: list[_Batch]
    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    known: NDArray[np.float64] | None

    @classmethod
    def of(cls, batches: Sequence[_Batch], answers: Sequence[Answers]) -> Self:
        """From the answers of one batch or more, with features."""
        known = [found.known for found in answers if found.known is not None]
        features = np.concatenate([found.features for found in answers if found.features is not None])
        probabilities = np.concatenate([found.probabilities for found in answers])
        return cls(list(batches), probabilities, features, np.concatenate(known) if known else None)


def see(predictor: "AdapterPredictor", sources: Iterable[ImageSource | Item]) -> Seen:
    """Read the images of a set to the end. Raises DataError for more of them than `MOST_SHARES` allows."""
    batches, answers = list[_Batch](), list[Answers]()
    most, count = MOST_SHARES // len(predictor.classes_), 0
    for batch, found in predictor.stream(sources, predictor.answers_with_features):
        batches.append(replace(batch, images=batch.images[:0], sources=tuple(map(_without_pixels, batch.sources))))
        count += len(batch.indices)
        if count > most:
            raise DataError(
                f"a set of {len(predictor.classes_):,} classes may have {most:,} images, found more; predict parts of "
                "it one by one, or leave out --transductive"
            )
        if batch.indices:
            answers.append(found)
    if not answers:
        none = np.empty((0, len(predictor.classes_)), np.float32)
        return Seen(batches, none, none[:, :0], None)
    return Seen.of(batches, answers)


def _without_pixels(source: ImageSource) -> ImageSource:
    """What a row says of a source: where its file is, or which part of it; images in memory are not kept."""
    return source if isinstance(source, Path | MadeImage) else b""


def solve(
    seen: Seen,
    support: Labelled | None = None,
    val: Labelled | None = None,
    config: TransductiveConfig | None = None,
    reject: float | None = None,
) -> tuple[Transduced, NDArray[np.bool_]] | None:
    """The classes of the images of a set, and which images (b,) it has; None for fewer than `LEAST`.

    Images with `known` of at most `reject` show no class and are left out. Logs that many images are strange, or few.
    """
    part = np.ones(len(seen.probabilities), np.bool_)
    if seen.known is not None:
        strange = int((seen.known <= STRANGE).sum())
        if reject is not None:
            part = seen.known > reject
        elif strange > MANY_STRANGE * len(part):
            _log.warning(
                "%d of %d images are unlike the training images; in a set each of them gets a class and moves the "
                "answers of the others: take them out, or let --reject %g do it",
                *(strange, len(part), STRANGE),
            )
    if (count := int(part.sum())) < LEAST:
        _log.warning("a set needs %d images or more, found %d; they are answered alone", LEAST, count)
        return None
    if part.all():
        return transduce(seen.features, seen.probabilities, support, val, config), part
    return transduce(seen.features[part], seen.probabilities[part], support, val, config), part


class SetPredictor(Predictor):
    """Answers as `alone` would, if it saw all images of a call together. Made by `AdapterPredictor.transductive`.

    config   options of TransCLIP      reject   leave images out of the set whose `known` is at most this
    """

    def __init__(self, alone: "AdapterPredictor", config: TransductiveConfig, reject: float | None = None) -> None:
        alone.check_fitted()
        alone.check_judging(reject, None)
        self.alone, self.config, self.reject = alone, config, reject
        self.classes_, self.batch_size = alone.classes_, alone.batch_size
        self.scaled_decoding = alone.scaled_decoding

    @property
    def preprocess(self) -> Preprocess:
        return self.alone.preprocess

    @property
    def truth(self) -> tuple[float, ...]:
        return self.alone.truth

    def check_judging(self, reject: float | None, error: float | None) -> None:
        if error is not None:
            raise DataError(NO_SETS)
        self.alone.check_judging(reject, None)

    def probabilities(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of the set of these preprocessed images: (B, 3, R, R) -> (B, C)."""
        return self._answered(Seen.of([], [self.alone.answers_with_features(images)]))

    def stream(
        self,
        sources: Iterable[ImageSource | Item],
        answers: Callable[[NDArray[np.float32]], Answers] | None = None,
    ) -> Iterator[tuple[_Batch, Answers]]:
        """Batches of the images of a set, without their pixels, after all have been read."""
        seen = see(self.alone, sources)
        found, done = self._answered(seen), 0
        for batch in seen.batches:
            rows = slice(done, done + len(batch.indices))
            done = rows.stop
            yield batch, Answers(found[rows], None if seen.known is None else seen.known[rows])

    def measure(
        self, table: ImageTable, decoder: Decoder, after_batch: Callable[[], object] = int
    ) -> tuple[Measured, Measured]:
        """Answers to labelled images alone, as `daptune.evaluate.measure`, and as a set, in one pass of the tower."""
        found: list[Answers] = []
        loader = ImageLoader(table, self.preprocess, self.batch_size, drop_last=False, decoder=decoder)
        for images, _ in loader.evaluation():
            found.append(self.alone.answers_with_features(images.numpy()))
            after_batch()
        seen = Seen.of([], found)
        alone = Measured(seen.probabilities, table.labels, seen.known, self.truth)
        return alone, Measured(self._answered(seen), table.labels, seen.known)

    def _answered(self, seen: Seen) -> NDArray[np.float32]:
        """Probabilities (b, C); those of images that are not in the set are their own."""
        solved = solve(seen, self.alone.support, None, self.config, self.reject)
        if solved is None:
            return seen.probabilities
        found, part = solved
        if part.all():
            return found.assignments
        answers = seen.probabilities.copy()
        answers[part] = found.assignments
        return answers


def config_of(options: dict[str, Any]) -> TransductiveConfig:
    """Options of TransCLIP by name. Raises MethodError for an unknown one or a bad value."""
    return TransductiveConfig(**parse_options("transductive", TransductiveConfig, options))
