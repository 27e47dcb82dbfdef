"""Class folders called by ids take their names from a list beside them, in any of the usual forms."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from daptune.data import read_source
from daptune.data.ids import readable_names
from daptune.names import unreadable

PNG = b"\x89PNG\r\n\x1a\n"
WNIDS = ("n02124075", "n04067472")


def lay(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "1.png").write_bytes(PNG)
    return root


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("words.txt", "n02124075\tEgyptian cat\nn00001740\tentity\nn04067472\treel, spool", ("Egyptian cat", "reel")),
        ("LOC_synset_mapping.txt", "n02124075 Egyptian cat\nn04067472 reel", ("Egyptian cat", "reel")),
        ("classnames.txt", "n02124075 cat of Egypt\nn04067472 reel", ("cat of Egypt", "reel")),
        ("imagenet_class_index.json", '{"0": ["n02124075", "cat"], "1": ["n04067472", "reel"]}', ("cat", "reel")),
        ("words.txt", "n02124075\tcat, Egyptian cat\nn04067472\tcat, reel", ("Egyptian cat", "reel")),
        ("words.txt", "n02124075\tcat\nn04067472\tcat", ("cat (n02124075)", "cat (n04067472)")),
    ],
)
def test_wordnet_ids_are_named(tmp_path: Path, name: str, content: str, found: tuple[str, ...]) -> None:
    lay(tmp_path / "train", *WNIDS)
    lay(tmp_path / "test", *WNIDS)
    (tmp_path / name).write_text(content)
    splits = read_source(tmp_path)
    assert splits.train.class_names == found and splits.test is not None and splits.test.class_names == found
    assert splits.train.labels.tolist() == splits.test.labels.tolist() == [0, 1]


def test_imagenets_ids_are_known_without_a_list(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("n01440764\tfish\n")  # which lacks the other
    assert read_source(lay(tmp_path, "n01440764", "n01443537")).train.class_names == ("tench", "goldfish")


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        (
            "cat_to_name.json",
            json.dumps({"1": "pink primrose", "2": "orchid", "10": "lily"}),
            "pink primrose lily orchid",
        ),
        ("classes.txt", "primrose\norchid\nlily\n", None),  # 10 folders are not meant by 3 lines
        ("classes.txt", "1 primrose\n2 orchid\n10 lily\n", "primrose lily orchid"),
    ],
)
def test_numbers_are_named(tmp_path: Path, name: str, content: str, found: str | None) -> None:
    lay(tmp_path, "1", "2", "10")
    (tmp_path / name).write_text(content)
    names = read_source(tmp_path).train.class_names
    assert " ".join(names) == (found or "1 10 2")


@pytest.mark.parametrize("first", [0, 1])
def test_lines_in_order_count_from_the_first_folder(tmp_path: Path, first: int) -> None:
    lay(tmp_path, str(first), str(first + 1))
    (tmp_path / "class_names.txt").write_text("cat\ndog\n")
    assert read_source(tmp_path).train.class_names == ("cat", "dog")


def test_without_a_list_they_stay_and_fit_says_what_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lay(tmp_path, "1", "2", "3", "4")
    with caplog.at_level(logging.WARNING, "daptune"):
        names = read_source(tmp_path).train.class_names
    assert names == ("1", "2", "3", "4") == tuple(unreadable(names)) and not caplog.records


def test_asked_for_their_own_ids_a_list_beside_them_does_not_count(tmp_path: Path) -> None:
    lay(tmp_path, "1", "2")
    (tmp_path / "cat_to_name.json").write_text('{"1": "cat", "2": "dog"}')
    assert read_source(tmp_path).train.class_names == ("cat", "dog")
    assert read_source(tmp_path, own_ids=True).train.class_names == ("1", "2")


def test_other_names_stay_and_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "words.txt").write_text("cat\tdog\ndog\tcat\n")
    assert readable_names(tmp_path, ["cat", "dog"]) == {"cat": "cat", "dog": "dog"}
    assert readable_names(tmp_path, ["n02124075", "dog"]) == {"n02124075": "n02124075", "dog": "dog"}
    assert not caplog.records


def test_an_adapter_of_ids_and_one_of_names_both_read_the_folder(tmp_path: Path) -> None:
    lay(tmp_path, *WNIDS)
    (tmp_path / "words.txt").write_text("n02124075\tEgyptian cat\nn04067472\treel\n")
    by_ids = read_source(tmp_path, label_names=WNIDS[::-1]).train
    assert by_ids.class_names == WNIDS[::-1] and by_ids.labels.tolist() == [1, 0]
    by_names = read_source(tmp_path, label_names=["reel", "Egyptian cat", "moon"]).train
    assert by_names.labels.tolist() == [1, 0]


def test_tiny_imagenet_is_read_as_it_is_packed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for wnid in WNIDS:
        lay(tmp_path / "train" / wnid, "images")
        (tmp_path / "train" / wnid / f"{wnid}_boxes.txt").write_text("1.png\t0\t0\t1\t1\n")
    lay(tmp_path / "val", "images")
    (tmp_path / "val" / "images" / "val_0.png").write_bytes(PNG)
    rows = f"1.png\t{WNIDS[1]}\t0\t0\t1\t1\nval_0.png\t{WNIDS[0]}\t0\t0\t1\t1\n"
    (tmp_path / "val" / "val_annotations.txt").write_text(rows)
    lay(tmp_path / "test", "images")
    (tmp_path / "words.txt").write_text("n02124075\tEgyptian cat\nn04067472\treel\n")
    with caplog.at_level(logging.WARNING, "daptune"):
        splits = read_source(tmp_path)
    assert splits.train.class_names == ("Egyptian cat", "reel") and len(splits.train) == 2
    assert splits.val is not None and splits.val.labels.tolist() == [1, 0] and splits.test is None
    assert [image.name for image in splits.val.images] == ["1.png", "val_0.png"]  # type: ignore[union-attr]
    assert "test: its images have no labels and are left out" in caplog.text
    assert np.array_equal(read_source(tmp_path, label_names=WNIDS).val.labels, [1, 0])  # type: ignore[union-attr]


def test_loose_images_beside_the_splits_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lay(tmp_path / "train", "a", "b")
    lay(tmp_path / "val", "a", "b")
    lay(tmp_path, "test")
    assert read_source(tmp_path).test is None
    assert "test: its images have no labels and are left out" in caplog.text
