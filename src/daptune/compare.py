"""Compare methods of one's choice on labelled images by cross-validation: `daptune.choose` without the choice."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from daptune.choose.choice import AUTO, CANDIDATES, learners
from daptune.choose.comparison import Comparison
from daptune.choose.trials import check_limits
from daptune.classifier import FewShotClassifier
from daptune.data.cache import Decoder
from daptune.data.table import ImageTable
from daptune.errors import DataError, MethodError
from daptune.methods import get_method


def compare_methods(
    classifier: FewShotClassifier,
    images: Any,
    labels: Any = None,
    *,
    methods: Sequence[str] = CANDIDATES,
    folds: int | None = None,
    minutes: float | None = None,
    val: ImageTable | None = None,
    holdout: float | None = None,
    tell: Callable[[str], None] | None = None,
    decoder: Decoder | None = None,
) -> Comparison:
    """Cross-validate methods on the images that `classifier.fit` would learn from; it is used for its settings alone.

    With `multi_label` they are compared by mAP, and those that cannot learn several labels are `left_out`.

    `method`, `method_options`, `preset` and `start_from` of the classifier do not count. The other arguments are those
    of `FewShotClassifier.fit` and of `daptune.choose.Trials`. Raises MethodError for an unknown name and where all are
    left out, and DataError for one image a class, where none can be held out.
    """
    check_limits(minutes, folds)
    named = method_list(methods)
    recipes = {name: classifier.settings(name) for name in learners(named, classifier.multi_label)}
    decoder = Decoder(cache_dir=classifier.cache_dir) if decoder is None else decoder
    drawn = classifier.draw(images, labels, val=val, holdout=holdout, decoder=decoder)
    backbone, _ = classifier.loaded_backbone(drawn.train, decoder)
    limits = {"minutes": minutes, "folds": folds, "tell": tell, "decoder": decoder}
    trials = classifier.trials(recipes, drawn, backbone, **limits)
    if not trials.possible:
        raise DataError(
            "comparing holds images out and needs 2 of a class, found 1 of each; give more images, or more --shots"
        )
    return replace(trials.run(), left_out=tuple(name for name in named if name not in recipes))


def method_list(names: Sequence[str]) -> list[str]:
    """The methods in the given order. Raises MethodError for a name that is unknown or occurs twice, and for none."""
    if AUTO in names or not names:
        fault = f"{AUTO} is no method to compare" if names else "no method to compare was named"
        raise MethodError(f"{fault}; name some, such as {', '.join(CANDIDATES[:3])}")
    found = [get_method(name).name for name in names]
    if twice := [name for name in found if found.count(name) > 1]:
        raise MethodError(f"{twice[0]} is named twice; name each method once")
    return found
