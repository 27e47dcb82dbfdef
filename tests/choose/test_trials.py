"""Cross-validation of methods on the same folds and on shared features."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold

from daptune.choose.choice import CANDIDATES
from daptune.choose.trials import CROPS, Trials
from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import Backbone, load_backbone
from daptune.data import images as images_module
from daptune.data.sources import read_source
from daptune.data.table import ImageTable

from ..conftest import save_picture

QUICK = {"epochs": 2, "batch_size": 8}
CLOSED = ("zero_shot", "prototype", "tip_adapter", "lp_pp", "linear_probe")


@pytest.fixture(scope="module")
def backbone(made_up_backbone: str) -> Backbone:
    return load_backbone(made_up_backbone, precision="fp32")


def uneven(folder: Path, sizes: dict[str, int], *, coloured: bool = True) -> ImageTable:
    """Classes of different sizes, of one colour each or of colours that say nothing."""
    rng = np.random.default_rng(5)
    for place, (name, size) in enumerate(sizes.items()):
        for number in range(size):
            shade = (60 * place + 20, 200 - 60 * place, 90) if coloured else tuple(rng.integers(0, 255, 3).tolist())
            save_picture(folder / name / f"{number}.png", shade, 100 * place + number)
    return read_source(folder).train


def trials(table: ImageTable, backbone: Backbone, methods: Any, **more: Any) -> Trials:
    classifier = FewShotClassifier(backbone=backbone, train_options=QUICK)
    return Trials({name: classifier.settings(name) for name in methods}, table, backbone, **more)


def units(table: ImageTable, backbone: Backbone) -> np.ndarray:
    from daptune.data.images import decode

    pictures = torch.stack([backbone.preprocess(decode(image)) for image in table.images])
    with torch.no_grad():
        z = backbone.clip.encode_image(pictures).double().numpy()
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_prototypes_by_hand(backbone: Backbone, tmp_path: Path) -> None:
    table = uneven(tmp_path, {"one": 4, "two": 6, "three": 9}, coloured=False)
    found = trials(table, backbone, ["prototype"], folds=3).run()
    z, labels, scale = units(table, backbone), table.labels, float(backbone.clip.logit_scale.exp())
    right, likely, repeats = np.zeros(19), np.zeros(19), 3  # 10 fits at most
    for seed in range(1, 1 + repeats):
        for train, held in StratifiedKFold(3, shuffle=True, random_state=seed).split(z, labels):
            means = np.stack([z[train][labels[train] == c].mean(axis=0) for c in range(3)])
            scores = -scale / 2 * ((z[held][:, None] - means) ** 2).sum(axis=2)
            chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            right[held] += scores.argmax(axis=1) == labels[held]
            likely[held] += np.log(chances[np.arange(len(held)), labels[held]])
    (row,) = found.rows
    np.testing.assert_allclose(row.correct, right / repeats)
    np.testing.assert_allclose(row.log_likelihood, likely / repeats, atol=1e-3)
    assert row.accuracy == pytest.approx(right.sum() / repeats / 19)
    assert row.error == pytest.approx(np.std(right / repeats, ddof=1) / 19**0.5)
    assert row.nll == pytest.approx(-likely.sum() / repeats / 19, abs=1e-3)
    assert "3-fold cross-validation of 19 images, 3 times" in found.how


def test_methods_share_one_pass_over_images_that_are_decoded_once(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = uneven(tmp_path, {"one": 3, "two": 5})
    encoded: list[int] = []
    decoded: Counter[str] = Counter()
    encode, decode = backbone.clip.encode_image, images_module.decode

    def counting(images: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
        encoded.append(len(images))
        return encode(images, *more, **named)

    def reading(source: Any, **named: Any) -> Any:
        decoded[str(source)] += 1
        return decode(source, **named)

    monkeypatch.setattr(backbone.clip, "encode_image", counting)
    monkeypatch.setattr(images_module, "decode", reading)
    methods = [name for name in CANDIDATES if name not in ("coop_vpt", "dapt")]
    found = trials(table, backbone, methods, folds=2).run()
    assert all(row.tried for row in found.rows), [row.note for row in found.rows]
    assert sum(encoded) == 8 * (1 + CROPS)
    assert set(decoded.values()) == {1} and len(decoded) == 8


def test_prompts_in_the_image_tower_read_the_images(backbone: Backbone, tmp_path: Path) -> None:
    table = uneven(tmp_path, {"one": 4, "two": 5})
    told: list[str] = []
    found = trials(table, backbone, ["coop_vpt"], folds=2, tell=told.append).run()
    assert found.rows[0].tried and "coop_vpt, fit 2 of 10" in told


def test_a_fit_on_shared_features_is_the_fit_on_images(backbone: Backbone, tmp_path: Path) -> None:
    """Without crops, each held-out fold is that of a classifier that was fitted on the other images."""
    table = uneven(tmp_path, {"one": 4, "two": 5, "three": 7}, coloured=False)
    options = QUICK | {"min_crop": 1.0, "optimizer": "sgd"}
    classifier = FewShotClassifier(backbone=backbone, train_options=options, shots=None)
    recipes = {name: classifier.settings(name) for name in ("clip_adapter", "linear_probe")}
    run = Trials(recipes, table, backbone, folds=4)
    rows = {row.method: row for row in run.run().rows}
    for name, row in rows.items():
        right = np.zeros(len(table))
        for seed in (1, 2):
            for train, held in StratifiedKFold(4, shuffle=True, random_state=seed).split(table.labels, table.labels):
                alone = FewShotClassifier(name, backbone, train_options=options, shots=None).fit(table.subset(train))
                right[held] += alone.evaluate(table.subset(held)).correct
        np.testing.assert_allclose(row.correct, right / 2)


def test_labels_that_say_nothing_are_at_chance(backbone: Backbone, tmp_path: Path) -> None:
    """No image is seen in training by the fit that it judges."""
    table = uneven(tmp_path, {"one": 14, "two": 18, "three": 22}, coloured=False)
    found = trials(table, backbone, ["taskres", "prototype", "lp_pp"]).run()
    chance = (1 / 3 * 2 / 3 / 54) ** 0.5
    for row in found.rows:
        assert abs(row.accuracy - 1 / 3) < 3 * chance, row.method


def test_zero_shot_is_not_chosen_where_words_are_of_no_use(backbone: Backbone, tmp_path: Path) -> None:
    table = uneven(tmp_path, {"one": 8, "two": 10, "three": 12})
    found = trials(table, backbone, CLOSED).run()
    by_name = {row.method: row.accuracy for row in found.rows}
    assert by_name["zero_shot"] < 0.6 < 0.9 < by_name["prototype"]
    assert found.chosen.method not in ("zero_shot", "tip_adapter")


def test_what_does_not_fit_into_the_time_is_not_tried(backbone: Backbone, tmp_path: Path) -> None:
    table = uneven(tmp_path, {"one": 6, "two": 5})
    slow = FewShotClassifier(backbone=backbone, train_options={"epochs": 100_000})
    recipes = {name: slow.settings(name) for name in ("clip_adapter", "prototype", "dapt")}
    found = Trials(recipes, table, backbone, minutes=0.3).run()
    notes = {row.method: row.note for row in found.rows}
    assert notes["prototype"] == "" and found.chosen.method == "prototype"
    for name in ("clip_adapter", "dapt"):
        assert re.fullmatch(r"not tried: (\d+ s needed, \d+ s left|no time left)", notes[name])
    assert [row.get("accuracy") is None for row in found.to_json()["rows"]] == [True, False, True]


def test_a_method_that_fails_does_not_end_the_others(backbone: Backbone, tmp_path: Path) -> None:
    table = uneven(tmp_path, {"one": 6, "two": 5})
    wild = FewShotClassifier(backbone=backbone, train_options={"lr": 1e30, "epochs": 3})
    recipes = {name: wild.settings(name) for name in ("coop", "prototype")}
    found = Trials(recipes, table, backbone).run()
    assert found.rows[0].note.startswith("failed: Training stopped") and found.chosen.method == "prototype"
