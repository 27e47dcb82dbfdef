"""What a plan calls a data set."""

from pathlib import Path

import numpy as np
import pytest

from daptune.bench.datasets import check_name, is_path, known_names, read_dataset
from daptune.cli.demo import read_tasks
from daptune.data.demo import demo_styles
from daptune.errors import DataError


def test_the_demo_is_that_of_the_folders(tmp_path: Path) -> None:
    (task,) = read_tasks("emoji", tmp_path)
    train, tests = task.train, task.tests
    splits = read_dataset("demo", tmp_path)
    assert splits.train.class_names == train.class_names and splits.val is not None
    assert [Path(str(p)).read_bytes() for p in train.images] == list(splits.train.images)
    np.testing.assert_array_equal(splits.train.labels, train.labels)
    for style in demo_styles():
        table = read_dataset(f"demo/{style}", tmp_path).test
        assert table is not None and table.class_names == train.class_names
        np.testing.assert_array_equal(table.labels, tests[style].labels)
        assert [Path(str(p)).read_bytes() for p in tests[style].images] == list(table.images)


def test_the_photographs_of_the_demo(tmp_path: Path) -> None:
    """Of the official splits, 16 to learn from and 15 to measure on in each class."""
    for task, name, classes in zip(
        read_tasks("photographs", tmp_path), ("caltech101", "eurosat"), (20, 10), strict=True
    ):
        splits = read_dataset(f"demo/{name}", tmp_path)
        assert splits.train.class_names == task.train.class_names and splits.test is not None
        assert splits.train.counts().tolist() == [16] * classes and splits.test.counts().tolist() == [15] * classes
        files = {
            part: [Path(str(p)).read_bytes() for p in table.images]
            for part, table in (("train", task.train), ("test", task.tests[name]))
        }
        assert files == {"train": list(splits.train.images), "test": list(splits.test.images)}
        assert len({*files["train"], *files["test"]}) == 31 * classes, "a photograph twice"


def test_a_folder_without_a_test_split_holds_a_fifth_out(pictures: Path) -> None:
    splits = read_dataset(str(pictures), Path("unused"))
    assert splits.test is not None and (len(splits.train), len(splits.test)) == (24, 6)
    assert not {str(p) for p in splits.train.images} & {str(p) for p in splits.test.images}


def test_names_and_paths(pictures: Path) -> None:
    assert not any(map(is_path, known_names()))
    assert {"demo", "demo/fxemoji", "eurosat", "imagenet_a"} <= set(known_names())
    assert check_name(str(pictures)) == str(pictures)
    with pytest.raises(DataError, match=r"For a folder, write \./pictures"):
        check_name("pictures")
