"""Labels that are missing, join several classes, or stand in the test images alone: one line each."""

import math
from pathlib import Path

import numpy as np
import pytest

from daptune.data.labels import check_single, is_blank
from daptune.data.sources import read_source, table_from_lists
from daptune.errors import DataError

from ..conftest import save_picture


def test_what_is_blank() -> None:
    assert all(map(is_blank, (None, "", math.nan, np.float32("nan"))))
    assert not any(map(is_blank, (0, "nan", "a", np.int64(3), 0.5)))


@pytest.mark.parametrize("blank", [math.nan, None, np.float64("nan")])
def test_a_missing_label_is_said_with_its_place(blank: object) -> None:
    with pytest.raises(DataError, match=r"image 2 has no label, found (nan|None|np\.float64)") as raised:
        table_from_lists(["a.png", "b.png", "a.png", "a.png"], ["x", "y", blank, blank])
    assert "both" not in str(raised.value)


def test_a_missing_label_in_parquet(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    save_picture(tmp_path / "a.png", (200, 0, 0), 0)
    pandas.DataFrame({"path": ["a.png", "a.png"], "label": [1.0, math.nan]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 2: expected an image and a label, found a blank"):
        read_source(tmp_path / "t.parquet")


def test_joined_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_single(["a", "b", 3], "t.csv")
    assert not caplog.messages
    check_single(["c|d", "e"], "t.csv")
    (line,) = caplog.messages
    assert (
        line
        == "t.csv: 'c|d' is read as the name of one class; an image has one class here, and several with --multi-label"
    )
    for label in ("a|b", "a | x", "x|a"):
        with pytest.raises(DataError, match="names several classes; an image has one class here") as raised:
            check_single(["a", "b", label, "b"], "t.csv")
        assert "Rows with several labels: 1, with one: 3. Type --multi-label to learn several" in str(raised.value)
        assert repr(label) in str(raised.value)
    for name in ("a", "b"):
        save_picture(tmp_path / f"{name}.png", (200, 0, 0), 0)
    (tmp_path / "t.csv").write_text("path,label\na.png,a\nb.png,a|b\n")
    with pytest.raises(DataError, match=r"t\.csv: the label 'a\|b' names several classes"):
        read_source(tmp_path / "t.csv")


def test_a_test_class_without_training_images(tmp_path: Path) -> None:
    for split, names in (("train", ("a", "b")), ("test", ("a", "c"))):
        for name in names:
            save_picture(tmp_path / split / name / "0.png", (200, 0, 0), 0)
    expected = "the class 'c' has no training images; add some, or leave it out"
    with pytest.raises(DataError, match=expected) as raised:
        read_source(tmp_path)
    assert str(tmp_path / "test") in str(raised.value) and "Choose" not in str(raised.value)
    rows = [
        f"{split}/{name}/0.png,{name},{split}" for split, names in (("train", "ab"), ("test", "ac")) for name in names
    ]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split", *rows]))
    with pytest.raises(DataError, match=expected) as raised:
        read_source(tmp_path / "t.csv")
    assert "Choose" not in str(raised.value)
    with pytest.raises(DataError, match="'c' is not among the 2 classes"):  # of an adapter: as before
        read_source(tmp_path, label_names=("a", "b"))
