"""Which embedded backbone is taken for a user's images."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from daptune.classifier import FewShotClassifier
from daptune.cli.demo import read_tasks
from daptune.clip.backbone import load_backbone
from daptune.data.cache import Decoder
from daptune.data.table import ImageTable
from daptune.embedded import choose_backbone
from daptune.evaluate import measure, zero_shot


@pytest.mark.parametrize(("pictures", "expected"), [("photographs", "photo"), ("emoji", "tiny")])
def test_photographs_and_icons_are_told_apart(pictures: str, expected: str, tmp_path: Path) -> None:
    table = read_tasks(pictures, tmp_path)[0].train
    some = table.subset(np.flatnonzero(np.arange(len(table)) % 5 == 0))
    backbone, why = choose_backbone(some, some.class_names, (), Decoder(), load_backbone)
    assert backbone.name == expected and why.startswith("best zero-shot likelihood")
    for name in ("photo", "tiny"):
        loss = measure(zero_shot(load_backbone(name), some.class_names), some).nll
        assert f"{name} {loss:.2f}" in why


def test_images_that_neither_knows_go_to_photo() -> None:
    """Noise with shuffled names: equal probabilities are better than either."""
    rng = np.random.default_rng(0)
    images = tuple(rng.integers(0, 256, (60, 64, 64, 3), dtype=np.uint8))
    table = ImageTable(images, rng.integers(0, 3, 60), ("dog", "castle", "apple"))
    backbone, why = choose_backbone(table, table.class_names, (), Decoder(), partial(load_backbone, precision="fp32"))
    assert backbone.name == "photo" and "a guess has 1.10" in why


def test_a_classifier_says_which_and_why(pictures: Path) -> None:
    classifier = FewShotClassifier("zero_shot", "auto", shots=2).fit(pictures)
    assert classifier.backbone_.name in ("photo", "tiny") and "nats" in classifier.backbone_why_
    assert classifier.record_.backbone["name"] == classifier.backbone_.name
    named = FewShotClassifier("zero_shot", "tiny", shots=2).fit(pictures)
    assert named.backbone_.name == "tiny" and named.backbone_why_ == ""
