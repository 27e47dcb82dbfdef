"""`AdapterPredictor`: a saved adapter as a classifier of images, without scikit-learn.

`daptune.FewShotClassifier` is one that can be fitted. Its import brings scikit-learn, which takes as long as torch's.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from daptune.adapter.record import AdapterRecord
from daptune.adapter.store import Adapter
from daptune.clip.backbone import Backbone
from daptune.clip.preprocess import Preprocess
from daptune.clip.transfer import Transfer
from daptune.errors import MethodError
from daptune.methods import Method
from daptune.methods.sigmoids import Sigmoids
from daptune.predict.predictor import Answers, Predictor

if TYPE_CHECKING:
    from daptune.predict.as_set import SetPredictor


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
        """Those of `Method.probabilities`: preprocessed images (B, 3, R, R) -> (B, C)."""
        return self.answers(images).probabilities

    @property
    def truth(self) -> tuple[float, ...]:
        self.check_fitted()
        return self.method_.ensemble.mix.truth if self.method_.ensemble is not None else ()

    @property
    def thresholds(self) -> NDArray[np.float32] | None:
        self.check_fitted()
        return None if self.method_.sigmoids is None else self.method_.sigmoids.thresholds.cpu().numpy()

    def answers(self, images: NDArray[np.float32]) -> Answers:
        return self._answers_to(images)

    def answers_with_features(self, images: NDArray[np.float32]) -> Answers:
        """`answers` with the unit image features, in one pass of the image tower if the method allows it."""
        return self._answers_to(images, with_features=True)

    @property
    def support(self) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """Unit features (S, D) and labels (S,) of the labelled images, if the adapter holds them."""
        self.check_fitted()
        held = self.method_.support_features()
        return None if held is None else (held[0].float().cpu().numpy(), held[1].long().cpu().numpy())

    def judge_each_class(self) -> Self:
        """Answer by SigLIP's sigmoids from now on, at temperature 1 and thresholds of 0.5; return self.

        Each class is judged by itself, so that an image may show several or none; an ensemble no longer answers. Raises
        MethodError for another backbone, and for a method with other scores than of texts and images.
        """
        self.check_fitted()
        method = self.method_
        if method.sigmoids is not None:
            return self
        if method.clip.logit_bias is None or type(method).logits is not Method.logits:
            raise MethodError(
                f"sigmoid scores are those of texts and images of a SigLIP, and this is {method.name} on "
                f"{method.backbone.name}; leave out --scores, or fit coop or dapt on a SigLIP."
            )
        classes = len(method.class_names)
        method.ensemble, method.sigmoids = None, Sigmoids(classes, learned=False, device=method.device)
        self.record_ = replace(self.record_, temperature=1.0)
        return self

    def transductive(self, reject: float | None = None, **options: Any) -> "SetPredictor":
        """The same adapter for sets: it answers to all images of a call at once, each helped by the others.

            classifier.transductive().predict("new-pictures/")

        By TransCLIP (docs/transductive.md); `options` are those of `TransductiveConfig`. Images that `predict_known`
        gives at most `reject` are answered alone. Raises MethodError for a bad option, DataError for `reject` without
        statistics of known images.
        """
        from daptune.predict.as_set import SetPredictor, config_of

        self.check_single_label("--transductive")
        return SetPredictor(self, config_of(options), reject)

    def _answers_to(self, images: NDArray[np.float32], *, with_features: bool = False) -> Answers:
        self.check_fitted()
        method, transfer = self.method_, Transfer(self.backbone_.device)
        with torch.inference_mode():
            (seen,), ensemble = transfer(torch.from_numpy(images)), method.ensemble
            if ensemble is not None or (with_features and method.sees != "images"):
                seen = method.encode(seen)
            scores = method.answer(seen).float()
            found: NDArray[np.float32] = method.probabilities(scores, self.record_.temperature).cpu().numpy()
            known = None if ensemble is None else ensemble.known(seen)
            return Answers(found, known, method.image_features(seen).float().cpu().numpy() if with_features else None)
