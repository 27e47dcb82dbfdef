import json
import logging
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import daptune
from daptune.data import ImageTable, Splits, decode, sample_fewshot
from daptune.data.benchmarks import BENCHMARKS, base_and_new, find, read_benchmark
from daptune.data.benchmarks.layouts import class_names
from daptune.data.benchmarks.registry import canonical
from daptune.errors import DataError

from .conftest import Small
from .trees import BUILDERS

DRAWN = [record.name for record in BENCHMARKS.values() if record.split_file]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_miniature_of_the_true_layout_is_read(
    name: str, small: Small, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record, names = small(name)
    splits = read_benchmark(name, tmp_path)
    assert splits.whole().class_names == tuple(names)
    found = tuple(0 if table is None else len(table) for table in (splits.train, splits.val, splits.test))
    assert found == record.counts
    assert ("was drawn with seed" in caplog.text) == bool(record.split_file)
    assert "published are" not in caplog.text
    paths = [str(path) for table in splits.present().values() for path in table.images]
    assert len(set(paths)) == len(paths)  # no image in two splits, none twice
    assert all(Path(path).is_file() for path in paths)
    assert decode(splits.whole().images[0]).size == (8, 8)
    assert (splits.whole().counts() > 0).all()


def test_every_data_set_has_a_miniature() -> None:
    assert set(BUILDERS) == set(BENCHMARKS)
    assert len(BENCHMARKS) == 15
    assert [record.name for record in BENCHMARKS.values() if not record.counts[0]] == [
        "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["oxford_pets", "stanford_cars", "sun397", "ucf101"])
def test_val_is_drawn_as_the_seeded_official_code_draws_it(name: str, small: Small, tmp_path: Path) -> None:
    """An own account of it with the global generator: shuffle the places of each class, the first fifth is val."""
    small(name)
    splits = read_benchmark(name, tmp_path)
    listed = {
        "oxford_pets": lambda n: [f"{breed}_{i}.jpg" for breed in ("Abyssinian", "american_bulldog", "Egyptian_Mau")
                                  for i in (100, 2, 33, 4, 5)],
        "stanford_cars": lambda n: [f"{i:05d}.jpg" for i in range(1, 11)],
        "sun397": lambda n: [f"sun_{i:03d}.jpg" for _ in range(3) for i in range(5)],
        "ucf101": lambda n: [f"v_{a}_g{i:02d}_c01.jpg" for a in ("ApplyEyeMakeup", "YoYo") for i in range(8, 13)],
    }[name](None)  # fmt: skip
    labels = [i % 2 for i in range(10)] if name == "stanford_cars" else [i // 5 for i in range(len(listed))]
    state = random.getstate()
    random.seed(1)
    val, train = [], []
    for label in dict.fromkeys(labels):
        places = [place for place, own in enumerate(labels) if own == label]
        random.shuffle(places)
        fifth = round(len(places) * 0.2)
        val += [listed[place] for place in places[:fifth]]
        train += [listed[place] for place in places[fifth:]]
    random.setstate(state)
    assert splits.val is not None
    assert [path.name for path in splits.val.images] == val
    assert [path.name for path in splits.train.images] == train


def test_drawing_leaves_the_global_generator_alone_and_repeats(small: Small, tmp_path: Path) -> None:
    small("eurosat")
    state = random.getstate()
    first, again = read_benchmark("eurosat", tmp_path), read_benchmark("eurosat", tmp_path)
    assert random.getstate() == state
    assert first.train.fingerprint() == again.train.fingerprint()


@pytest.mark.parametrize("name", DRAWN)
def test_the_authors_split_goes_before_a_drawn_one(
    name: str, small: Small, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record, names = small(name)
    drawn = read_benchmark(name, tmp_path)
    caplog.clear()
    images = (tmp_path / record.folder / record.images).resolve()
    content = {
        part: [
            [path.relative_to(images).as_posix(), int(label), names[label]]
            for path, label in reversed(list(zip(table.images, table.labels, strict=True)))
        ]
        for part, table in drawn.present().items()
    }
    (tmp_path / record.folder / record.split_file).write_text(json.dumps(content))
    splits = read_benchmark(name, tmp_path)
    assert "was drawn with seed" not in caplog.text
    assert splits.train.images == tuple(reversed(drawn.train.images))  # the order of the file is kept
    assert splits.train.class_names == tuple(names)
    assert splits.train.labels.tolist() == drawn.train.labels.tolist()[::-1]


def test_labels_of_a_split_file_count_in_their_own_order(small: Small, tmp_path: Path) -> None:
    small("eurosat")
    files = sorted((tmp_path / "eurosat" / "2750").glob("*/*.jpg"))
    order = {"AnnualCrop": 2, "Forest": 0, "SeaLake": 1}
    rows = [[f"{path.parent.name}/{path.name}", order[path.parent.name], path.parent.name] for path in files]
    (tmp_path / "eurosat" / "split_zhou_EuroSAT.json").write_text(json.dumps({"train": rows, "val": [], "test": []}))
    assert read_benchmark("eurosat", tmp_path).train.class_names == ("Forest", "SeaLake", "AnnualCrop")


def test_imagenet_is_in_sorted_order_so_that_draws_are_the_same_everywhere(small: Small, tmp_path: Path) -> None:
    small("imagenet")
    splits = read_benchmark("imagenet", tmp_path)
    names = [path.name for path in splits.train.images]
    assert names == [f"{w}_{n}.JPEG" for w in ("n01440764", "n03773504", "n04008634") for n in ("1", "12", "3")]
    assert splits.val is None  # nothing can be chosen on the test images
    drawn = sample_fewshot(splits.train, 2, 1).train
    stream = random.Random(1)
    assert [path.name for path in drawn.images] == [
        names[i] for start in (0, 3, 6) for i in stream.sample(range(start, start + 3), 2)
    ]


def test_imagenet_classes_are_those_of_clip() -> None:
    names = class_names(Path("nowhere"))
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    assert len(names) == 1000
    assert list(names) == sorted(names)
    assert (names["n02012849"], names["n03126707"]) == ("crane bird", "construction crane")
    assert twice == ["missile", "sunglasses"]


def test_own_class_names_go_before_those_kept_here(small: Small, tmp_path: Path) -> None:
    small("imagenet_a")
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "classnames.txt").write_text("n01443537 gold fish\nn02099601 retriever, golden\n")
    test = read_benchmark("imagenet_a", tmp_path).test
    assert test is not None
    assert test.class_names == ("gold fish", "retriever, golden")
    (tmp_path / "imagenet-adversarial" / "classnames.txt").write_text("n01443537 a\nn02099601 b\n")
    assert read_benchmark("imagenet_a", tmp_path).whole().class_names == ("a", "b")


def test_a_missing_image_is_told_before_anything_starts(small: Small, tmp_path: Path) -> None:
    small("oxford_pets")
    (tmp_path / "oxford_pets" / "images" / "Abyssinian_100.jpg").unlink()
    with pytest.raises(DataError, match=r"oxford_pets in .*: 1 of its 21 images are missing, .*Abyssinian_100.jpg"):
        read_benchmark("oxford_pets", tmp_path)


def test_a_test_split_without_any_image_is_left_out(
    small: Small, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small("stanford_cars")
    (tmp_path / "stanford_cars" / "cars_test").rename(tmp_path / "elsewhere")
    splits = read_benchmark("stanford_cars", tmp_path)
    assert [len(table) for table in splits.present().values()] == [8, 2] and splits.test is None
    assert "none of its 4 test images is there (the first is cars_test/00001.jpg)" in caplog.text
    assert "published are" not in caplog.text
    (tmp_path / "stanford_cars" / "cars_train").rename(tmp_path / "elsewhere too")
    with pytest.raises(DataError, match="14 of its 14 images are missing"):
        read_benchmark("stanford_cars", tmp_path)


@pytest.mark.parametrize(
    ("name", "remove", "message"),
    [
        ("oxford_pets", "annotations/test.txt", r"expected annotations/test.txt or split_zhou_OxfordPets.json"),
        ("stanford_cars", "devkit/cars_meta.mat", r"expected devkit/cars_meta.mat or split_zhou"),
        ("fgvc_aircraft", "variants.txt", r"expected variants.txt \(No such file"),
        ("eurosat", "2750", r"expected 2750 \(No such file"),
    ],
)
def test_a_missing_part_is_named(name: str, remove: str, message: str, small: Small, tmp_path: Path) -> None:
    record, _ = small(name)
    (tmp_path / record.folder / remove).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=message):
        read_benchmark(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("oxford_pets", "annotations/trainval.txt", "Abyssinian_1\n", "line 1: expected 2 words"),
        ("oxford_pets", "annotations/trainval.txt", "Abyssinian_1 one 1 1\n", "not as published"),
        ("fgvc_aircraft", "images_variant_val.txt", "0034310 Zeppelin\n", "not as published .*Zeppelin"),
        ("stanford_cars", "devkit/cars_meta.mat", "<html>", "not a MATLAB file"),
        ("imagenet_a", "classnames.txt", "n01443537 goldfish\n", "not as published .*n02099601"),
    ],
)
def test_damaged_annotations_are_one_line(
    name: str, file: str, content: str, message: str, small: Small, tmp_path: Path
) -> None:
    record, _ = small(name)
    (tmp_path / record.folder / file).write_text(content)
    with pytest.raises(DataError, match=message) as raised:
        read_benchmark(name, tmp_path)
    assert "\n" not in str(raised.value)


def test_a_missing_class_folder_is_an_error(small: Small, tmp_path: Path) -> None:
    small("imagenet_sketch")
    place = tmp_path / "imagenet-sketch" / "images" / "n01443537"
    place.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="expected 2 classes, found 1"):
        read_benchmark("imagenet_sketch", tmp_path)


def test_another_number_of_images_is_a_warning(small: Small, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small("imagenet_r")
    (tmp_path / "imagenet-rendition" / "imagenet-r" / "n02099601" / "art_2.jpg").unlink()
    with caplog.at_level(logging.WARNING, "daptune"):
        read_benchmark("imagenet_r", tmp_path)
    assert "(0, 0, 4) images in train, val and test; published are (0, 0, 5)" in caplog.text


def test_an_absent_data_set_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*dtd; type `daptune data prepare dtd`"):
        read_benchmark("dtd", tmp_path)


def test_names_in_any_spelling() -> None:
    assert canonical("Oxford-Pets") == "oxford_pets" and canonical("none of them") == "none of them"
    for spelling, name in {
        "DescribableTextures": "dtd", "flowers102": "oxford_flowers", "OxfordFlowers": "oxford_flowers",
        "imagenet-a": "imagenet_a", "ImageNetV2": "imagenetv2", "Food101": "food101", "caltech-101": "caltech101",
    }.items():  # fmt: skip
        assert find(spelling).name == name
    with pytest.raises(DataError, match="Did you mean 'eurosat'"):
        find("eurosatt")


def test_the_root_is_an_argument_a_variable_or_data(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small("eurosat")
    monkeypatch.setenv("DAPTUNE_DATA", str(tmp_path))
    assert len(read_benchmark("eurosat").train) == 15
    assert len(daptune.read_source("data:EuroSAT").train) == 15
    monkeypatch.delenv("DAPTUNE_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no folder data.eurosat"):
        read_benchmark("eurosat")


def test_a_benchmark_is_measured_with_the_classes_of_an_adapter(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small("imagenet_r")
    monkeypatch.setenv("DAPTUNE_DATA", str(tmp_path))
    own = daptune.read_source("data:imagenet_r", training=False).test
    wider = daptune.read_source(
        "data:imagenet_r", training=False, label_names=["Golden Retriever", "missile", "missile_", "goldfish"]
    ).test
    assert own is not None
    assert wider is not None
    assert [wider.class_names[i] for i in wider.labels] == [own.class_names[i] for i in own.labels]
    with pytest.raises(DataError, match="1 of its 2 classes, the first 'Golden Retriever'"):
        daptune.read_source("data:imagenet_r", training=False, label_names=["goldfish", "cat"])
    with pytest.raises(DataError, match="expected images to learn from"):
        daptune.read_source("data:imagenet_r")


def table(labels: list[int], classes: int) -> ImageTable:
    return ImageTable(
        tuple(Path(f"{number}.jpg") for number in range(len(labels))),
        np.array(labels, dtype=np.int64),
        tuple("abcdefgh"[:classes]),
    )


def test_base_is_the_first_half_of_the_labels_rounded_up() -> None:
    splits = Splits(table([4, 0, 1, 2, 3, 3, 0], 5), None, table([3, 2, 4], 5))
    base, new = base_and_new(splits)
    assert (base.train.class_names, new.train.class_names) == (tuple("abc"), tuple("de"))
    assert base.train.labels.tolist() == [0, 1, 2, 0]
    assert [path.name for path in base.train.images] == ["1.jpg", "2.jpg", "3.jpg", "6.jpg"]
    assert new.train.labels.tolist() == [1, 0, 0]
    assert base.test is not None
    assert new.test is not None
    assert (base.test.labels.tolist(), new.test.labels.tolist()) == ([2], [0, 1])
    assert base.val is None


def test_base_images_are_those_of_the_run_on_all_classes() -> None:
    splits = Splits(table([0, 1, 2, 3] * 6, 4))
    drawn = sample_fewshot(splits.train, 2, 3).train
    base, _ = base_and_new(Splits(drawn))
    assert set(base.train.images) == {path for path, label in zip(drawn.images, drawn.labels, strict=True) if label < 2}


def test_one_class_has_no_halves() -> None:
    with pytest.raises(DataError, match="two classes or more"):
        base_and_new(Splits(table([0, 0], 1)))
