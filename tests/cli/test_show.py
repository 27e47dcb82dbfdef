"""`daptune show`, for an adapter of every method."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from daptune.adapter.card import shots_text
from daptune.adapter.store import make_record, save_adapter
from daptune.classifier import FewShotClassifier
from daptune.cli.fitting import prompt_text
from daptune.methods import METHODS

from ..conftest import CLASSES
from .conftest import Command


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_prompt_in_words_and_can_be_shown(
    name: str, fitted: FewShotClassifier, tmp_path: Path, daptune: Command
) -> None:
    method = METHODS[name](fitted.backbone_, CLASSES)
    assert prompt_text(method)
    folder = save_adapter(tmp_path / "a", method, make_record(method, fitted.backbone_))
    assert daptune("show", folder, "--words", "1").code == 0


def test_show(daptune: Command, adapter: Path, tmp_path: Path, made_up_backbone: str) -> None:
    done = daptune("show", adapter, "--words", "2")
    assert done.code == 0 and "text_prompt 4 x 64" in done.out and "words nearest" in done.out
    found = daptune("show", adapter, "--json").json
    assert found["record"]["method"] == "coop_vpt"
    assert [len(row["words"]) for row in found["nearest_words"]] == [3] * 4
    distances = [word["distance"] for word in found["nearest_words"][0]["words"]]
    assert distances == sorted(distances)
    copy = shutil.copytree(adapter, tmp_path / "copy")
    text = (copy / "adapter.json").read_text()
    (copy / "adapter.json").write_text(text.replace(made_up_backbone, "/nowhere/clip.pt"))
    done = daptune("show", copy)
    assert done.code == 0 and "nearest words are left out" in done.err and "coop_vpt" in done.out
    moved = ("--backbone", made_up_backbone)
    assert daptune("predict", copy, tmp_path / "none.png").code == 2
    assert "needs the backbone" not in daptune("predict", copy, tmp_path / "none.png", *moved).err


@pytest.mark.parametrize(
    ("shots", "data", "expected"),
    [
        (16, {"images": 45, "per_class": [6, 12]}, "6 to 12 per class, 45 images; at most 16 were asked for"),
        (4, {"images": 12, "per_class": [4, 4]}, "4 per class, 12 images"),
        (None, {"images": 30, "per_class": [10, 10]}, "all images, 30: 10 per class"),
        (16, {"images": 45}, "at most 16 per class, 45 images"),  # of an earlier version
        (15, {"images": 45}, "15 per class, 45 images"),
        (None, {"images": 1234}, "all images, 1,234"),
        (16, {"images": "many", "per_class": "few"}, "at most 16 per class"),
    ],
)
def test_shots_are_those_that_were_used(
    fitted: FewShotClassifier, shots: int | None, data: dict[str, object], expected: str
) -> None:
    record = replace(fitted.record_, shots=shots, data=data)
    assert len(record.class_names) == 3 and shots_text(record) == expected


def test_a_fit_records_how_many_images_its_classes_had(fitted: FewShotClassifier) -> None:
    assert fitted.record_.data["per_class"] == [4, 4] and fitted.record_.data["images"] == 12
