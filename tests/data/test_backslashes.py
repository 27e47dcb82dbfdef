"""Paths that Windows wrote are read where the files are there with slashes, and named as the cause where not."""

import csv
import json
import os
from pathlib import Path

import pytest

from daptune.data.backslashes import with_slashes
from daptune.data.sources import read_source
from daptune.errors import DataError
from daptune.predict.inputs import items

from ..conftest import save_picture

pytestmark = pytest.mark.skipif(os.sep == "\\", reason="there, backslashes divide folders")
NAMES = [("circle", 0), ("circle", 1), ("square", 0)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label, number in NAMES:
        save_picture(tmp_path / "pics" / label / f"{number}.png", (200, 0, 0), number)
    return tmp_path


def table(folder: Path, prefix: str = "pics\\") -> Path:
    path = folder / "win.csv"
    rows = [("path", "label"), *((f"{prefix}{label}\\{number}.png", label) for label, number in NAMES)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def split(folder: Path, prefix: str = "") -> Path:
    path = folder / "pics" / "split_zhou_win.json"
    rows = [[f"{prefix}{label}\\{number}.png", ["circle", "square"].index(label), label] for label, number in NAMES]
    path.write_text(json.dumps({"train": rows, "val": [], "test": []}))
    return path


def test_tables_lists_and_split_files(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = [folder / "pics" / label / f"{number}.png" for label, number in NAMES]
    for source in (table(folder), split(folder), folder / "pics"):
        caplog.clear()
        found = read_source(source).train
        assert list(found.images) == expected and found.class_names == ("circle", "square")
        assert len(caplog.messages) == 1 and "backslashes" in caplog.messages[0]
    assert [item.source for item in items([str(folder / "win.csv")])] == expected
    assert next(item.name for item in items([str(folder / "win.csv")])) == "pics\\circle\\0.png"
    (folder / "list.txt").write_text("\n".join(f"{folder}\\pics\\{label}\\{number}.png" for label, number in NAMES))
    assert [item.source for item in items([str(folder / "list.txt")])] == expected


@pytest.mark.parametrize("write", [table, split])
def test_they_are_the_cause_where_no_file_is_found(folder: Path, write) -> None:
    with pytest.raises(DataError, match="backslashes, as Windows writes them") as raised:
        read_source(write(folder, "C:\\data\\"))
    assert "image_root" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_whose_name_has_one_is_itself(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").touch()
    assert with_slashes(tmp_path, "a\\b") == tmp_path / "a" / "b"
    (tmp_path / "a\\b").touch()
    assert with_slashes(tmp_path, "a\\b") == tmp_path / "a\\b"
    assert with_slashes(tmp_path, "c\\d") == tmp_path / "c\\d"


def test_other_split_files_are_told_what_can_be_done(folder: Path) -> None:
    path = folder / "pics" / "split_zhou_x.json"
    path.write_text(json.dumps({"train": [["none/0.png", 0, "a"], ["none/1.png", 1, "b"]]}))
    with pytest.raises(DataError, match="put the file into the folder that its paths start from") as raised:
        read_source(path)
    assert "image_root" not in str(raised.value)
