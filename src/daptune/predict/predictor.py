"""`Predictor`: base class of fitted image classifiers. C classes, R x R pixels."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daptune.clip.preprocess import Preprocess
from daptune.data.stream import Decoded, Item, decoded_batches
from daptune.data.table import ImageSource
from daptune.errors import DataError
from daptune.heap import memory_kept
from daptune.metrics import prediction_sets
from daptune.predict.inputs import image_sources


@dataclass(frozen=True)
class Answers:
    """What a predictor says of B images: probabilities (B, C), and how well each is known (B,), or None.

    known      p value of the similarity to the nearest class mean among known images (`daptune.metrics.tail_p_values`)
    features   unit image features (B, D), where they were asked for
    """

    probabilities: NDArray[np.float32]
    known: NDArray[np.float64] | None = None
    features: NDArray[np.float32] | None = None


class Predictor(ABC):
    """Base class of `AdapterPredictor` (torch), as `daptune.FewShotClassifier` is one, and `OnnxClassifier`.

    classes_         labels, names or integers, in the order of the columns of `predict_proba`
    batch_size       images per batch
    scaled_decoding  decode large JPEGs at a reduced size: faster, with slightly different pixels
    """

    classes_: NDArray[Any]
    batch_size: int
    scaled_decoding: bool

    @property
    @abstractmethod
    def preprocess(self) -> Preprocess:
        """The transform from an image to the input of `probabilities`."""

    @abstractmethod
    def probabilities(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of the classes, with `thresholds` each by itself: preprocessed images (B, 3, R, R) -> (B, C), B >= 1."""

    @property
    def truth(self) -> tuple[float, ...]:
        """Probabilities of the true classes of known images, ascending, to make prediction sets; empty without any."""
        return ()

    @property
    def thresholds(self) -> NDArray[np.float32] | None:
        """The probability from which an image shows a class, (C,); None: every image has one class."""
        return None

    def answers(self, images: NDArray[np.float32]) -> Answers:
        """`probabilities`, and how well the images are known: (B, 3, R, R), for B >= 1."""
        return Answers(self.probabilities(images))

    def check_judging(self, reject: float | None, error: float | None) -> None:
        """Raise DataError for a share that is none, or if the adapter has no statistics of known images."""
        for name, share in (("reject", reject), ("sets", error)):
            if share is not None and not 0 < share < 1:
                raise DataError(f"--{name} must be a share between 0 and 1, such as 0.05; found {share:g}")
        if reject is not None or error is not None:
            option = "--sets" if reject is None else "--reject"
            self.check_single_label(option)
            if self.truth:
                return
            raise DataError(without_statistics(option))

    def check_single_label(self, option: str) -> None:
        """Raise DataError for an option of images with one class where they have any number."""
        if self.thresholds is not None:
            raise DataError(
                f"{option} is for images with one class, and this adapter judges each class by itself: an "
                "image of none has no labels; use predict or eval without it"
            )

    def predict_known(self, images: Any) -> NDArray[np.float64]:
        """How well each image is known, (n,): below 0.05 for 5 % of images like the training images, more of others.

        Raises DataError if the adapter has no statistics of known images.
        """
        self.check_judging(0.5, None)
        return np.concatenate([answers.known for answers in self._answers(images) if answers.known is not None])

    def predict_sets(self, images: Any, *, error: float = 0.1) -> list[list[Any]]:
        """For each image the classes that may be true, most likely first; the truth is missing with `error` at most.

        Raises DataError as `predict_known`.
        """
        self.check_judging(None, error)
        return [
            of_set(self.classes_.tolist(), row, within)
            for answers in self._answers(images)
            for row, within in zip(
                answers.probabilities, prediction_sets(self.truth, answers.probabilities, error), strict=True
            )
        ]

    def predict(self, images: Any) -> Any:
        """The most likely class of each image, (n,): names, or integers if the training labels were.

        With `thresholds`, a list of the classes of each image, most likely first; or an indicator matrix (n, C) if the
        training labels were one.
        """
        if (levels := self.thresholds) is not None:
            rows = self.predict_proba(images)
            if self.classes_.dtype.kind == "i":
                return (rows >= levels).astype(np.int64)
            return [of_set(self.classes_.tolist(), row, row >= levels) for row in rows]
        likeliest = self.predict_proba(images).argmax(axis=1)
        found: NDArray[Any] = self.classes_[likeliest]
        return found

    def predict_proba(self, images: Any) -> NDArray[np.float32]:
        """Probabilities (n, C), columns as `classes_`.

        `images`: a list of paths, PIL images, uint8 arrays or bytes, a Hugging Face data set, or one folder, searched
        recursively. Images are streamed, so memory does not grow with their number. Raises DataError for the first
        unreadable image.
        """
        return np.concatenate([answers.probabilities for answers in self._answers(images)])

    def _answers(self, images: Any) -> Iterator[Answers]:
        """Of each batch. Raises DataError for the first unreadable image, and without any."""
        none = True
        for batch, answers in self.stream(image_sources(images)):
            if batch.failed:
                raise DataError(f"{batch.failed[0].reason} Leave it out; `daptune predict` skips such files.")
            none = False
            yield answers
        if none:
            raise DataError("expected images to predict, found none.")

    def stream(
        self,
        sources: Iterable[ImageSource | Item],
        answers: Callable[[NDArray[np.float32]], Answers] | None = None,
    ) -> Iterator[tuple[Decoded[NDArray[np.float32]], Answers]]:
        """Batches of images with what is said of them; `batch.failed` holds the unreadable images.

        `answers` is used in place of the method of this name.
        """
        answers = self.answers if answers is None else answers
        with memory_kept():
            for batch in decoded_batches(sources, self.preprocess, self.batch_size, scaled=self.scaled_decoding):
                if batch.indices:
                    yield batch, answers(batch.images)
                else:
                    yield batch, Answers(np.empty((0, len(self.classes_)), np.float32))


def without_statistics(option: str) -> str:
    """The error for an option that needs statistics of known images."""
    return (
        f"this adapter does not say what known images look like, which {option} needs: fit a method that learns "
        "prompts again, with --ensemble auto and two or more images of a class"
    )


def of_set(classes: Sequence[Any], probabilities: NDArray[np.float32], within: NDArray[np.bool_]) -> list[Any]:
    """The classes `within` (C,), most likely first."""
    return [classes[place] for place in np.argsort(-probabilities, kind="stable") if within[place]]
