"""Weights of classes: scikit-learn's "balanced", scaled numbers, and what is refused in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from daptune.data.table import ImageTable
from daptune.data.weights import check_class_weight, class_weights, read_class_weights
from daptune.errors import DataError

NAMES = ("cat", "hot_dog", "dog")


@pytest.fixture
def table() -> ImageTable:
    labels = np.array([0] * 10 + [1] * 1 + [2] * 4)
    return ImageTable(tuple(Path(f"{i}.png") for i in range(15)), labels, NAMES)


def test_auto_is_scikit_learns_balanced(table: ImageTable) -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=table.labels)
    np.testing.assert_allclose(class_weights("auto", table), expected, rtol=1e-6)


def test_given_weights_are_relative(table: ImageTable) -> None:
    """By hand: 10 x 1 + 1 x 5 + 4 x 2 = 23 over 15 images, so that the mean becomes 1."""
    found = class_weights({"dog": 2, "cat": 1, "hot_dog": 5}, table)
    np.testing.assert_allclose(found, np.array([1, 5, 2]) * 15 / 23, rtol=1e-6)
    np.testing.assert_allclose(class_weights({"dog": 20, "cat": 10, "hot_dog": 50}, table), found, rtol=1e-6)
    assert found[table.labels].mean() == pytest.approx(1)


def test_a_class_without_images_changes_nothing(table: ImageTable) -> None:
    wider = ImageTable(table.images, table.labels, (*NAMES, "bird"))
    np.testing.assert_allclose(class_weights("auto", wider)[:3], class_weights("auto", table), rtol=1e-6)


def test_classes_named_by_numbers() -> None:
    table = ImageTable((Path("a"), Path("b")), np.array([0, 1]), ("0", "1"))
    np.testing.assert_allclose(class_weights({0: 1, 1: 3}, table), [0.5, 1.5])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"cat": 1, "dog": 1, "hot_dog": 1, "dogg": 2},
            "there is a weight for 'dogg', which is not a class. Did you mean",
        ),
        ({"cat": 1}, "there is no weight for the class 'hot_dog' and 1 more; give one for each of 3"),
        ({"cat": 1, "dog": 0, "hot_dog": 1}, "the weight of 'dog' must be a number above 0; found 0"),
        ({"cat": 1, "dog": -2.0, "hot_dog": 1}, "found -2.0"),
        ({"cat": 1, "dog": float("nan"), "hot_dog": 1}, "found nan"),
        ({"cat": 1, "dog": "much", "hot_dog": 1}, "found 'much'"),
        ({"cat": 1, "dog": True, "hot_dog": 1}, "found True"),
    ],
)
def test_wrong_weights(given: dict[str, Any], message: str, table: ImageTable) -> None:
    with pytest.raises(DataError, match=message):
        class_weights(given, table)


def test_wrong_settings() -> None:
    with pytest.raises(DataError, match="must be 'auto', weights by class name, or None; found 'balanced'"):
        check_class_weight("balanced", balanced=False)
    with pytest.raises(DataError, match="found 3"):
        check_class_weight(3, balanced=False)
    with pytest.raises(DataError, match="both even out the classes"):
        check_class_weight("auto", balanced=True)
    check_class_weight({"cat": 2}, balanced=True)
    check_class_weight(None, balanced=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w.csv", "class,weight\ncat,1\nhot_dog,2.5\n"),
        ("w.csv", "\ufeffClass;Weight\ncat;1\nhot_dog;2.5\n"),
        ("w.tsv", "class\tweight\ncat\t1\nhot_dog\t2.5\n"),
        ("w.json", '{"cat": 1, "hot_dog": 2.5}'),
    ],
)
def test_weights_of_a_file(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    assert read_class_weights(tmp_path / name) == {"cat": 1, "hot_dog": 2.5}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("w.csv", "name,weight\ncat,1\n", "w.csv: expected the columns class,weight, found name,weight"),
        ("w.csv", "class,weight\ncat,1\ncat,2\n", "w.csv has two weights for 'cat'"),
        ("w.csv", "class,weight\ncat,-1\n", "the weight of 'cat' must be a number above 0; found '-1'"),
        ("w.csv", "class,weight\ncat\n", "expected 2 values as in the header, found 1"),
        ("w.csv", "class,weight\n", "w.csv has no weights"),
        ("w.csv", "", "w.csv is empty; expected the columns"),
        ("w.json", "[1, 2]", "expected an object such as"),
        ("w.json", "{", "w.json is not JSON"),
        ("w.json", '{"cat": null}', "the weight of 'cat' must be a number above 0; found None"),
        ("w.json", '{"cat": 1, "cat": 2}', "w.json has two weights for 'cat'"),
    ],
)
def test_wrong_files(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(DataError, match=message):
        read_class_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["none.csv", "none.json"])
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(No such file or directory\); (?!save)"):
        read_class_weights(tmp_path / name)
