"""`Predictor`: base class of fitted image classifiers. C classes, R x R pixels."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daptune.clip.preprocess import Preprocess
from daptune.data.stream import Decoded, Item, decoded_batches
from daptune.data.table import ImageSource
from daptune.errors import DataError
from daptune.predict.inputs import image_sources


class Predictor(ABC):
    """Base class of `daptune.FewShotClassifier` (torch) and `OnnxClassifier` (onnxruntime).

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
        """softmax(logits / temperature): preprocessed images (B, 3, R, R) -> (B, C), for B >= 1."""

    def predict(self, images: Any) -> NDArray[Any]:
        """The most likely class of each image, (n,): names, or integers if the training labels were."""
        likeliest = self.predict_proba(images).argmax(axis=1)
        found: NDArray[Any] = self.classes_[likeliest]
        return found

    def predict_proba(self, images: Any) -> NDArray[np.float32]:
        """Probabilities (n, C), columns as `classes_`.

        `images`: a list of paths, PIL images, uint8 arrays or bytes, or one folder, searched recursively. Images are
        streamed, so memory does not grow with their number. Raises DataError for the first unreadable image.
        """
        found = []
        for batch, probabilities in self.stream(image_sources(images)):
            if batch.failed:
                raise DataError(f"{batch.failed[0].reason} Leave it out; `daptune predict` skips such files.")
            found.append(probabilities)
        if not found:
            raise DataError("expected images to predict, found none.")
        return np.concatenate(found)

    def stream(
        self, sources: Iterable[ImageSource | Item]
    ) -> Iterator[tuple[Decoded[NDArray[np.float32]], NDArray[np.float32]]]:
        """Batches of images with their probabilities (b, C); `batch.failed` holds the unreadable images."""
        for batch in decoded_batches(sources, self.preprocess, self.batch_size, scaled=self.scaled_decoding):
            if batch.indices:
                yield batch, self.probabilities(batch.images)
            else:
                yield batch, np.empty((0, len(self.classes_)), np.float32)
