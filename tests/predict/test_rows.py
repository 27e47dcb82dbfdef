"""Rows come in the order of the images, whatever could not be read; each format holds the same."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from daptune.data.stream import Item
from daptune.errors import MissingExtraError
from daptune.predict import rows as row_module
from daptune.predict.row_log import RowLog
from daptune.predict.rows import Format, check_parquet, format_of, predict_rows

from .fakes import Fake

TOP = [{"label": "ü", "probability": 0.75}, {"label": "x", "probability": 0.25}]
ROWS: list[dict[str, Any]] = [
    {"file": "a, b\n.png", **TOP[0], "top": TOP},
    {"file": "gone.png", "error": "No such file or directory."},
]
NAMES = ["0", "bad 1", "2", "bad 3", "bad 4", "bad 5", "6"]


def images() -> list[Item]:
    return [Item(f"row {name}", Path(name)) for name in NAMES]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_a_row_an_image_in_order(batch: int) -> None:
    groups = list(predict_rows(Fake(batch), images(), 1))
    rows = [row for group in groups for row in group]
    assert [len(group) for group in groups][:-1] == [batch] * (len(groups) - 1)
    assert [row["file"] for row in rows] == [f"row {name}" for name in NAMES]
    assert [set(row) for row in rows if "bad" in row["file"]] == [{"file", "error"}] * 4
    assert rows[1]["error"] == "bad 1: no image"
    good = [row for row in rows if "error" not in row]
    assert [set(row) for row in good] == [{"file", "label", "probability"}] * 3
    assert good[0]["label"] in Fake.classes_ and 1 / 3 <= good[0]["probability"] <= 1


def test_several_classes_the_likeliest_first() -> None:
    rows = [row for group in predict_rows(Fake(), images(), 9) for row in group if "top" in row]
    for row in rows:
        values = [item["probability"] for item in row["top"]]
        assert values == sorted(values, reverse=True) and len(values) == 3 and abs(sum(values) - 1) < 1e-5
        assert row["top"][0] == {"label": row["label"], "probability": row["probability"]}


def test_images_are_asked_for_as_they_are_needed() -> None:
    taken: list[int] = []

    def stream():
        for number in range(100):
            taken.append(number)
            yield Item(str(number), Path(str(number)))

    next(predict_rows(Fake(4), stream(), 1))
    assert len(taken) == 4


def write(out: Path, form: Format, rows: list[dict[str, Any]], top_k: int = 2) -> Path:
    with RowLog(out, {}) as log:
        log.append(rows)
        log.finish(form, top_k)
    return out


def test_the_name_decides() -> None:
    names = ("r.csv", "r.CSV", "r.parquet", "r.pq", "r.jsonl", "r")
    assert [format_of(Path(name)) for name in names] == ["csv", "csv", "parquet", "parquet", "jsonl", "jsonl"]
    assert format_of(None) == "jsonl"


def test_all_formats_hold_the_same(tmp_path: Path) -> None:
    lines = write(tmp_path / "rows.jsonl", "jsonl", ROWS).read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == ROWS
    with write(tmp_path / "rows.csv", "csv", ROWS).open(encoding="utf-8", newline="") as file:
        flat = list(csv.DictReader(file))
    assert flat[0] == {"file": "a, b\n.png", "label": "ü", "probability": "0.75", "label_2": "x",
                       "probability_2": "0.25", "error": ""}  # fmt: skip
    assert flat[1]["file"] == "gone.png" and flat[1]["error"] and not flat[1]["label"]
    table = parquet.read_table(write(tmp_path / "rows.parquet", "parquet", ROWS))
    assert table.column_names == list(flat[0])
    found = table.to_pylist()
    assert found[0] == {**flat[0], "probability": 0.75, "probability_2": 0.25, "error": None}
    assert found[1] == dict.fromkeys(flat[0]) | ROWS[1]


def test_labels_that_are_integers_stay_integers(tmp_path: Path) -> None:
    rows = [{"file": "gone", "error": "x"}, {"file": "a", "label": 7, "probability": 1.0}]
    table = parquet.read_table(write(tmp_path / "rows.parquet", "parquet", rows, 1))
    assert table.schema.field("label").type == "int64" and table["label"].to_pylist() == [None, 7]


def test_parquet_is_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_module, "_GROUP", 4)
    rows = [{"file": str(number), "label": "x", "probability": 0.5} for number in range(10)]
    with parquet.ParquetFile(write(tmp_path / "rows.parquet", "parquet", rows, 1)) as file:
        assert file.num_row_groups == 3
        assert file.read()["file"].to_pylist() == [row["file"] for row in rows]


def test_without_pyarrow_it_is_one_line_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"rows\.parquet needs pyarrow: pip install 'daptune\[parquet\]'"):
        check_parquet("rows.parquet")
