"""`AdapterPredictor`: a saved adapter as a classifier of images, without scikit-learn.

`daptune.FewShotClassifier` is one that can be fitted. Its import brings scikit-learn, which takes as long as torch's.
"""

from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from daptune.adapter.record import AdapterRecord
from daptune.adapter.store import Adapter
from daptune.clip.backbone import Backbone
from daptune.clip.preprocess import Preprocess
from daptune.clip.transfer import Transfer
from daptune.methods import Method
from daptune.predict.predictor import Answers, Predictor


class AdapterPredictor(Predictor):
    """A method on its frozen CLIP, and the record of the adapter, with the interface of `Predictor`.

    AdapterPredictor().hold(load_adapter("adapter")).predict(["a.png"])
    """

    method_: Method
    backbone_: Backbone
    record_: AdapterRecord
    batch_size = 64
    scaled_decoding = False

    def hold(self, adapter: Adapter) -> Self:
        """Answer with a loaded adapter from now on; return self."""
        record = adapter.record
        self.classes_ = np.array(record.class_names if record.labels is None else record.labels)
        self.method_, self.backbone_, self.record_ = adapter.method, adapter.backbone, record
        return self

    def check_fitted(self) -> None:
        """Raise an error if there is no method yet."""

    @property
    def preprocess(self) -> Preprocess:
        """The image transform of the backbone."""
        self.check_fitted()
        return self.backbone_.preprocess

    def probabilities(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """softmax(logits / temperature): preprocessed images (B, 3, R, R) -> (B, C)."""
        return self.answers(images).probabilities

    @property
    def truth(self) -> tuple[float, ...]:
        self.check_fitted()
        return self.method_.ensemble.mix.truth if self.method_.ensemble is not None else ()

    def answers(self, images: NDArray[np.float32]) -> Answers:
        self.check_fitted()
        transfer = Transfer(self.backbone_.device)
        with torch.inference_mode():
            (seen,), ensemble = transfer(torch.from_numpy(images)), self.method_.ensemble
            seen = seen if ensemble is None else self.method_.encode(seen)
            logits = self.method_.answer(seen).float()
            found: NDArray[np.float32] = (logits / self.record_.temperature).softmax(dim=-1).cpu().numpy()
            return Answers(found, None if ensemble is None else ensemble.known(seen))
