"""What unlabelled images teach: the rule of TransCLIP's means and variance, in one adapter that saves and exports."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import daptune
from daptune import FewShotClassifier
from daptune.data.sources import table_from_lists
from daptune.errors import DataError, MethodError
from daptune.export.graph import Graph, folded
from daptune.transductive import transduce

from ..conftest import CLASSES, save_picture

MUTED = {"blue_thing": (92, 100, 112), "green thing": (96, 112, 100), "red": (110, 98, 98)}
"""Colours that are easily mistaken for each other."""


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, list[Path]]:
    """Uneven labelled, validation, unlabelled and new pictures."""
    sizes = {"train": (2, 4, 3), "val": (3, 2, 2), "unlabelled": (9, 2, 5), "new": (2, 3, 1)}
    found: dict[str, list[Path]] = {}
    for kind, (name, counts) in enumerate(sizes.items()):
        found[name] = []
        for place, count in enumerate(counts):
            for number in range(count):
                path = tmp_path / name / CLASSES[place] / f"{number}.png"
                save_picture(path, MUTED[CLASSES[place]], 7000 + 1000 * kind + 70 * place + number)
                found[name].append(path)
    return found


def classifier_of(method: str, backbone: str, **options: Any) -> FewShotClassifier:
    training = {"epochs": 1, "batch_size": 4} if method == "coop" else None
    return FewShotClassifier(method, backbone, precision="fp32", train_options=training, **options)


def features(classifier: Any, paths: list[Path]) -> Any:
    images = torch.stack([classifier.preprocess(Image.open(path)) for path in paths])
    with torch.no_grad():
        return torch.nn.functional.normalize(classifier.method_.encode(images), dim=-1).numpy()


def labels_of(paths: list[Path]) -> Any:
    return np.array([CLASSES.index(path.parent.name) for path in paths])


@pytest.mark.parametrize(
    ("method", "with_val"), [("coop", True), ("coop", False), ("zero_shot", False), ("prototype", True)]
)
def test_later_images_are_answered_by_the_rule(
    method: str, with_val: bool, folders: dict[str, list[Path]], made_up_backbone: str, tmp_path: Path
) -> None:
    train, others, new = folders["train"], folders["unlabelled"], folders["new"]
    plain, learned = (classifier_of(method, made_up_backbone, calibrate="none") for _ in range(2))
    given: dict[str, Any] = {}
    if with_val:
        given["val"] = table_from_lists(folders["val"], [path.parent.name for path in folders["val"]])
    labels = [path.parent.name for path in train]
    plain.fit(train, labels, **given)
    learned.fit(train, labels, unlabelled=others, **given)
    drawn = [Path(str(path)) for path in learned.train_table_.images]
    support = features(plain, drawn), labels_of(drawn)
    held = None
    if learned.val_table_ is not None:
        kept = [Path(str(path)) for path in learned.val_table_.images]
        held = features(plain, kept), labels_of(kept)
    found = transduce(features(plain, others), plain.predict_proba(others), support, held)
    x, p = features(plain, new).astype(np.float64), plain.predict_proba(new).astype(np.float64)
    distance = np.array([[(((row - m) ** 2) / found.variance).sum() for m in found.means] for row in x])
    powers = np.sqrt(p) * np.exp(-(distance - distance.min(axis=1, keepdims=True)) / 100)
    expected = powers / powers.sum(axis=1, keepdims=True)
    answers = learned.predict_proba(new)
    np.testing.assert_allclose(answers, expected, atol=3e-3)  # its matrix is kept in float16
    assert np.abs(answers - plain.predict_proba(new)).max() > 0.02
    assert learned.record_.data["unlabelled"] == {"images": 16, "gamma": found.gamma}
    loaded = daptune.load(learned.save(tmp_path / "adapter"), precision="fp32")
    np.testing.assert_allclose(loaded.predict_proba(new), answers, atol=1e-6)
    images = torch.stack([learned.preprocess(Image.open(path)) for path in new])
    _, exported = Graph(folded(learned.method_), learned.record_.temperature)(images)
    np.testing.assert_allclose(exported.detach().numpy(), answers, atol=1e-5)
    assert not learned.truth  # its known images were judged by other answers


def test_validation_images_judge_the_new_answers(folders: dict[str, list[Path]], made_up_backbone: str) -> None:
    val = table_from_lists(folders["val"], [path.parent.name for path in folders["val"]])
    train = folders["train"]
    learned = classifier_of("coop", made_up_backbone)
    learned.fit(train, [path.parent.name for path in train], unlabelled=folders["unlabelled"], val=val)
    assert learned.val_table_ is not None and learned.calibration_ is not None and learned.unlabelled_ is not None
    kept = [Path(str(path)) for path in learned.val_table_.images]
    p = learned.predict_proba(kept)[np.arange(len(kept)), labels_of(kept)]
    np.testing.assert_allclose(learned.truth, np.sort(p), atol=1e-4)
    assert learned.record_.temperature == learned.calibration_.temperature
    assert len(learned.predict_known(folders["new"])) == 6


def test_other_classes_drop_what_was_learned_of_the_old_ones(
    folders: dict[str, list[Path]], made_up_backbone: str
) -> None:
    train = folders["train"]
    learned = classifier_of("zero_shot", made_up_backbone)
    learned.fit(train, [path.parent.name for path in train], unlabelled=folders["unlabelled"])
    other, names = learned.with_classes(["sea", "meadow"]), ["sea", "meadow"]
    plain = daptune.METHODS["zero_shot"](learned.backbone_, names)
    images = torch.stack([learned.preprocess(Image.open(path)) for path in folders["new"]])
    expected = plain.logits(images).softmax(-1).detach().numpy()
    np.testing.assert_allclose(other.predict_proba(folders["new"]), expected, atol=1e-5)
    assert "unlabelled" not in other.record_.data


def test_bad_input_is_told_before_training_where_it_can_be(
    folders: dict[str, list[Path]], made_up_backbone: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = folders["train"]
    labels = [path.parent.name for path in train]
    before_projection = classifier_of("linear_probe", made_up_backbone, method_options={"features": "pre_projection"})
    for classifier in (classifier_of("vp", made_up_backbone), before_projection):
        with pytest.raises(MethodError, match=f"{classifier.method} cannot learn from unlabelled images"):
            classifier.fit(train, labels, unlabelled=folders["unlabelled"])
    prototype = classifier_of("prototype", made_up_backbone)
    with pytest.raises(DataError, match=r"^unlabelled images: expected a list of images or a folder"):
        prototype.fit(train, labels, unlabelled=str(train[0]))
    (bad := tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="expected 8 or more unlabelled images, found 4"):
        prototype.fit(train, labels, unlabelled=[*folders["unlabelled"][:3], bad])
    assert not hasattr(prototype, "history_")  # nothing was trained for it
    with pytest.raises(DataError, match="expected 8 or more unlabelled images that can be read, found 7"):
        prototype.fit(train, labels, unlabelled=[*folders["unlabelled"][:7], bad])
    caplog.clear()
    with caplog.at_level(logging.WARNING, "daptune"):
        prototype.fit(train, labels, unlabelled=[bad, *folders["unlabelled"]])
    assert any(line.startswith("1 of 17 unlabelled images are left out") for line in caplog.messages)
    assert prototype.unlabelled_ is not None and prototype.unlabelled_.images == 16
