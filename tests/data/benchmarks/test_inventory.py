import json
from pathlib import Path

import pytest

from daptune.data.benchmarks import BENCHMARKS, inventory
from daptune.data.benchmarks.inventory import check
from daptune.data.benchmarks.layouts import READERS
from daptune.methods.templates import find_dataset
from daptune.presets import dataset_names

from .conftest import Small


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_whole_data_set_has_no_problems(name: str, small: Small, tmp_path: Path) -> None:
    record, names = small(name)
    report = check(name, tmp_path)
    assert report.problems == ()
    assert report.state == "whole"
    assert report.classes == len(names)
    assert report.counts == {
        part: (count, count) for part, count in zip(("train", "val", "test"), record.counts, strict=True) if count
    }
    assert all(entry.present for entry in report.entries if entry.needed)
    assert [entry.path for entry in report.entries if not entry.needed and entry.path == record.split_file] == (
        [record.split_file] if record.split_file else []
    )


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_absent_data_set_shows_its_tree(name: str, tmp_path: Path) -> None:
    report = check(name, tmp_path)
    assert report.state == "absent"
    assert report.problems == (f"there is no folder {tmp_path / BENCHMARKS[name].folder}",)
    assert any(entry.needed for entry in report.entries)
    assert not any(entry.present for entry in report.entries)


def test_missing_images_are_counted_by_split(small: Small, tmp_path: Path) -> None:
    small("fgvc_aircraft")
    for number in (34311, 34312, 34319):  # two of train, one of test
        (tmp_path / "fgvc_aircraft" / "images" / f"{number:07d}.jpg").unlink()
    report = check("fgvc_aircraft", tmp_path)
    assert report.state == "half there"
    assert report.counts == {"train": (2, 4), "val": (4, 4), "test": (3, 4)}
    assert report.missing == ("0034311.jpg", "0034312.jpg", "0034319.jpg")
    assert report.problems == ("3 images are missing, the first 0034311.jpg",)


def test_nearly_whole_and_without_a_split_are_called_so(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "FEW", 0.1)
    small("oxford_flowers")
    (tmp_path / "oxford_flowers" / "jpg" / "image_00001.jpg").unlink()
    assert check("oxford_flowers", tmp_path).state == "complete but for 1 images"
    small("stanford_cars")
    (tmp_path / "stanford_cars" / "cars_test").rename(tmp_path / "elsewhere")
    report = check("stanford_cars", tmp_path)
    assert report.state == "without its test images"
    assert report.counts == {"train": (8, 8), "val": (2, 2), "test": (0, 4)} and report.classes == 2
    assert report.problems == (
        "cars_test/ is missing", "4 images are missing, the first cars_test/00001.jpg",
        "none of the 4 test images is there",
    )  # fmt: skip
    (tmp_path / "stanford_cars" / "cars_train" / "00001.jpg").unlink()
    assert check("stanford_cars", tmp_path).state == "half there"


def test_annotations_are_needed_where_there_is_no_split_file(small: Small, tmp_path: Path) -> None:
    record, _ = small("oxford_pets")
    (tmp_path / "oxford_pets" / "annotations" / "test.txt").unlink()
    report = check("oxford_pets", tmp_path)
    assert report.problems == ("annotations/test.txt is missing",)
    rows = [["Abyssinian_2.jpg", 0, "abyssinian"], ["american_bulldog_2.jpg", 1, "american_bulldog"]]
    content = {"train": rows, "val": [], "test": [["Egyptian_Mau_2.jpg", 2, "egyptian_mau"]]}
    (tmp_path / "oxford_pets" / record.split_file).write_text(json.dumps(content))
    report = check("oxford_pets", tmp_path)
    assert not any(entry.needed for entry in report.entries if entry.path.startswith("annotations"))
    assert report.problems == (
        "2 train images, published are 12", "0 val images, published are 3", "1 test images, published are 6",
    )  # fmt: skip


def test_too_few_classes_and_images_are_told(small: Small, tmp_path: Path) -> None:
    small("imagenet_a")
    place = tmp_path / "imagenet-adversarial" / "imagenet-a" / "n02099601"
    for path in place.iterdir():
        path.unlink()
    report = check("imagenet_a", tmp_path)
    assert report.problems == ("1 classes of 2", "3 test images, published are 5")


def test_a_damaged_split_file_is_a_problem(small: Small, tmp_path: Path) -> None:
    record, _ = small("dtd")
    (tmp_path / "dtd" / record.split_file).write_text("<html>")
    report = check("dtd", tmp_path)
    assert len(report.problems) == 1
    assert "cannot be read" in report.problems[0]


def test_presets_and_templates_know_every_data_set() -> None:
    assert set(dataset_names()) == set(BENCHMARKS)
    for record in BENCHMARKS.values():
        assert find_dataset(record.title) == record.title


def test_the_records_are_those_of_the_published_sets() -> None:
    """CoOp's table: classes, and images in train, val and test."""
    assert {name: (record.classes, *record.counts) for name, record in BENCHMARKS.items()} == {
        "caltech101": (100, 4128, 1649, 2465),
        "oxford_pets": (37, 2944, 736, 3669),
        "stanford_cars": (196, 6509, 1635, 8041),
        "oxford_flowers": (102, 4093, 1633, 2463),
        "food101": (101, 50500, 20200, 30300),
        "fgvc_aircraft": (100, 3334, 3333, 3333),
        "sun397": (397, 15880, 3970, 19850),
        "dtd": (47, 2820, 1128, 1692),
        "eurosat": (10, 13500, 5400, 8100),
        "ucf101": (101, 7639, 1898, 3783),
        "imagenet": (1000, 1281167, 0, 50000),
        "imagenetv2": (1000, 0, 0, 10000),
        "imagenet_sketch": (1000, 0, 0, 50889),
        "imagenet_a": (200, 0, 0, 7500),
        "imagenet_r": (200, 0, 0, 30000),
    }
    assert {record.layout for record in BENCHMARKS.values()} == set(READERS)
