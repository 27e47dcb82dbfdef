"""The makers' own archives, pointed at by their folder."""

import logging
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from daptune.data import read_source
from daptune.data.benchmarks.archives import find_archive
from daptune.data.benchmarks.registry import BENCHMARKS
from daptune.data.check import without_missing
from daptune.errors import DataError

from .conftest import Small
from .trees import lines, pictures


@pytest.mark.parametrize(
    ("name", "counts"),
    [("caltech101", (23, 0, 0)), ("eurosat", (30, 0, 0)), ("oxford_pets", (12, 3, 6)), ("stanford_cars", (10, 0, 4)),
     ("oxford_flowers", (10, 4, 6)), ("fgvc_aircraft", (4, 4, 4)), ("sun397", (12, 3, 6)), ("ucf101", (8, 2, 4)),
     ("imagenet", (9, 0, 6)), ("imagenet_a", (0, 0, 5)), ("imagenet_r", (0, 0, 5))],
)  # fmt: skip
@pytest.mark.parametrize("below", ["", "unpacked"])
def test_a_folder_is_known_by_its_makers_files(
    name: str, counts: tuple[int, ...], below: str, small: Small, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record, names = small(name)
    place = tmp_path / "mine" / below / "x"
    place.parent.mkdir(parents=True)
    (tmp_path / record.folder).rename(place)
    found = find_archive(place if not below else place.parent)
    assert found is not None and found[0].name == name and found[1] == place
    with caplog.at_level(logging.WARNING, "daptune"):
        splits = read_source(place, training=False)
    assert splits.whole().class_names == tuple(names)
    assert tuple(0 if table is None else len(table) for table in (splits.train, splits.val, splits.test)) == counts
    assert all(Path(str(image)).is_file() for image in splits.whole().images)
    assert f"is read as {record.title} in its makers' layout" in caplog.text


def test_dtd_by_its_first_split_and_food_by_its_meta_folder(tmp_path: Path) -> None:
    for part, number in (("train", 1), ("val", 2), ("test", 3)):
        files = [f"{name}/{name}_{number}.jpg" for name in ("dotted", "bumpy")]
        lines(tmp_path / "d" / "labels" / f"{part}1.txt", files)
        pictures(tmp_path / "d" / "images", files)
    (tmp_path / "d" / "imdb").mkdir()
    splits = read_source(tmp_path / "d")
    assert splits.train.class_names == ("bumpy", "dotted") and splits.train.labels.tolist() == [1, 0]
    assert [len(table) for table in splits.present().values()] == [2, 2, 2]

    for part, numbers in (("train", (1, 2)), ("test", (3,))):
        rows = [f"{name}/{number}" for name in ("waffles", "apple_pie") for number in numbers]
        lines(tmp_path / "f" / "meta" / f"{part}.txt", rows)
        pictures(tmp_path / "f" / "images", [f"{row}.jpg" for row in rows])
    splits = read_source(tmp_path / "f")
    assert splits.train.class_names == ("apple_pie", "waffles") and splits.train.counts().tolist() == [2, 2]
    assert splits.val is None and splits.test is not None and len(splits.test) == 2


def test_flowers_by_their_own_sets_with_and_without_names(
    small: Small, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small("oxford_flowers")
    folder = tmp_path / "oxford_flowers"
    sets = {"trnid": [[1, 11]], "valid": [[2, 12]], "tstid": [[*range(3, 11), *range(13, 21)]]}
    savemat(folder / "setid.mat", {key: np.array(value, np.uint16) for key, value in sets.items()})
    splits = read_source(folder)
    assert [len(table) for table in splits.present().values()] == [2, 2, 16]
    assert splits.train.class_names == ("pink primrose", "sword lily") and splits.train.labels.tolist() == [1, 0]
    (folder / "cat_to_name.json").unlink()
    assert read_source(folder).train.class_names == ("1", "2")
    assert "without cat_to_name.json" in caplog.text


def test_cars_without_test_labels_and_what_is_left_out_of_caltech(
    small: Small, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small("stanford_cars")
    (tmp_path / "stanford_cars" / "cars_test_annos_withlabels.mat").unlink()
    assert read_source(tmp_path / "stanford_cars").test is None
    small("caltech101")
    read_source(tmp_path / "caltech-101")
    assert "BACKGROUND_Google and Faces_easy are left out" in caplog.text


def test_damaged_files_are_one_line(small: Small, tmp_path: Path) -> None:
    small("oxford_pets")
    (tmp_path / "oxford_pets" / "annotations" / "trainval.txt").write_text("Abyssinian_1 one 1 1\n")
    with pytest.raises(DataError, match="not as published"):
        read_source(tmp_path / "oxford_pets")


def test_images_given_in_place_of_their_folder(small: Small, tmp_path: Path) -> None:
    small("oxford_flowers")
    with pytest.raises(DataError, match=r"images but no sub-folders. Did you mean .*oxford_flowers\?"):
        read_source(tmp_path / "oxford_flowers" / "jpg")


def test_other_folders_are_none(tmp_path: Path) -> None:
    pictures(tmp_path, ["2750/1.jpg", "2751/1.jpg", "images/train/a/1.jpg"])
    assert find_archive(tmp_path) is None and find_archive(tmp_path / "none") is None
    assert all(record.signs for record in BENCHMARKS.values())


def test_a_split_without_any_image_is_left_out_of_a_folder(
    small: Small, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small("stanford_cars")
    (tmp_path / "stanford_cars" / "cars_test").rename(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING, "daptune"):
        splits = without_missing(read_source(tmp_path / "stanford_cars"), "cars")
    assert splits.test is None and len(splits.train) == 10
    assert "cars: 4 of 14 images are not there, the first" in caplog.text
    assert "none of the 4 test images is there" in caplog.text
