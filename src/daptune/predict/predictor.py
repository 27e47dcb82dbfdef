"""`Predictor`: a fitted classifier of images, whatever computes the probabilities. C classes, R x R pixels."""

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
    """What `daptune.FewShotClassifier` (torch) and `OnnxClassifier` (onnxruntime) have in common.

    classes_         what `predict` answers with, in the order of the columns of `predict_proba`: names or integers
    batch_size       images at a time
    scaled_decoding  decode large JPEGs at a fraction of their size: faster, not quite the same pixels
    """

    classes_: NDArray[Any]
    batch_size: int
    scaled_decoding: bool

    @property
    @abstractmethod
    def preprocess(self) -> Preprocess:
        """The transform from an image to what `probabilities` takes."""

    @abstractmethod
    def probabilities(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """softmax(logits / temperature): preprocessed images (B, 3, R, R) -> (B, C), B of at least 1."""

    def predict(self, images: Any) -> NDArray[Any]:
        """The likeliest class of each image, (n,): names, or integers where the labels were."""
        likeliest = self.predict_proba(images).argmax(axis=1)
        found: NDArray[Any] = self.classes_[likeliest]
        return found

    def predict_proba(self, images: Any) -> NDArray[np.float32]:
        """Probabilities (n, C), columns as `classes_`.

        `images`: a list of paths, PIL images, uint8 arrays or bytes, or one folder with all below it. They are decoded
        and classified in a stream, so their number does not matter. Raises DataError at the first one that cannot be
        read.
        """
        found = []
        for batch, probabilities in self.stream(image_sources(images)):
            if batch.failed:
                raise DataError(f"{batch.failed[0].reason} Leave it out; `daptune predict` goes on past such files.")
            found.append(probabilities)
        if not found:
            raise DataError("expected images to predict, found none.")
        return np.concatenate(found)

    def stream(
        self, sources: Iterable[ImageSource | Item]
    ) -> Iterator[tuple[Decoded[NDArray[np.float32]], NDArray[np.float32]]]:
        """Batches of a stream of images with their probabilities (b, C); what cannot be read is in `batch.failed`."""
        for batch in decoded_batches(sources, self.preprocess, self.batch_size, scaled=self.scaled_decoding):
            if batch.indices:
                yield batch, self.probabilities(batch.images)
            else:
                yield batch, np.empty((0, len(self.classes_)), np.float32)
