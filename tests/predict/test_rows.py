"""Rows come in the order of the images, whatever could not be read; each format holds the same."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from daptune.data.stream import Item
from daptune.errors import DataError, MissingExtraError
from daptune.predict import rows as row_module
from daptune.predict.row_log import RowLog
from daptune.predict.rows import Format, Wanted, check_parquet, format_of, predict_rows

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
    groups = list(predict_rows(Fake(batch), images(), Wanted(1)))
    rows = [row for group in groups for row in group]
    assert [len(group) for group in groups][:-1] == [batch] * (len(groups) - 1)
    assert [row["file"] for row in rows] == [f"row {name}" for name in NAMES]
    assert [set(row) for row in rows if "bad" in row["file"]] == [{"file", "error"}] * 4
    assert rows[1]["error"] == "bad 1: no image"
    good = [row for row in rows if "error" not in row]
    assert [set(row) for row in good] == [{"file", "label", "probability"}] * 3
    assert good[0]["label"] in Fake.classes_ and 1 / 3 <= good[0]["probability"] <= 1


def test_several_classes_the_likeliest_first() -> None:
    rows = [row for group in predict_rows(Fake(), images(), Wanted(9)) for row in group if "top" in row]
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

    next(predict_rows(Fake(4), stream(), Wanted(1)))
    assert len(taken) == 4


def write(out: Path, form: Format, rows: list[dict[str, Any]], top_k: int = 2) -> Path:
    with RowLog(out, {}) as log:
        log.append(rows)
        log.finish(form, Wanted(top_k))
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


class Judge(Fake):
    truth = (0.2, 0.4, 0.6, 0.8)  # of four known images


def test_images_unlike_the_known_ones_are_unknown() -> None:
    items = [Item("a", Path("known 0.05")), Item("b", Path("known 0.06")), Item("c", Path("bad"))]
    ((a, b, c),) = predict_rows(Judge(), items, Wanted(2, reject=0.05))
    assert (a["label"], a["unknown"], a["known"]) == ("unknown", True, 0.05)
    assert (b["label"], b["unknown"], b["known"]) == (b["top"][0]["label"], False, 0.06)
    assert a["likeliest"] == a["top"][0]["label"] in Fake.classes_ and set(c) == {"file", "error"}


def test_sets_hold_every_class_that_is_probable_enough() -> None:
    """At 20 %, p values are above 0.2 from the first of the four probabilities on: 2 of 5."""
    for row in (row for rows in predict_rows(Judge(), images(), Wanted(3, sets=0.2)) for row in rows if "set" in row):
        expected = [item["label"] for item in row["top"] if item["probability"] >= 0.2]
        assert row["set"] == (expected or [row["label"]])
    assert next(iter(predict_rows(Judge(), images()[:1], Wanted(sets=0.999))))[0]["set"] == [
        next(iter(predict_rows(Fake(), images()[:1], Wanted())))[0]["label"]
    ]


@pytest.mark.parametrize("wanted", [Wanted(reject=0.05), Wanted(sets=0.1)])
def test_without_known_images_nothing_is_judged(wanted: Wanted) -> None:
    with pytest.raises(DataError, match="prompts again, with --ensemble auto and two or more images"):
        next(predict_rows(Fake(), images(), wanted))


@pytest.mark.parametrize("share", [0, 1, -0.1, 5, float("nan")])
def test_shares_lie_between_0_and_1(share: float) -> None:
    for wanted, name in ((Wanted(reject=share), "--reject"), (Wanted(sets=share), "--sets")):
        with pytest.raises(DataError, match=f"{name} must be a share between 0 and 1"):
            next(predict_rows(Judge(), images(), wanted))


def test_a_class_called_unknown_cannot_be_told_from_none() -> None:
    class Named(Judge):
        classes_ = np.array(["cat", "unknown", "owl"])

    with pytest.raises(DataError, match="a class is called 'unknown'"):
        next(predict_rows(Named(), images(), Wanted(reject=0.05)))
    assert next(predict_rows(Named(), images(), Wanted(sets=0.1)))


@pytest.mark.parametrize("integers", [False, True])
def test_all_formats_hold_what_is_unknown(tmp_path: Path, integers: bool) -> None:
    class Some(Judge):
        classes_ = np.array([4, 7, 9]) if integers else Fake.classes_

    wanted = Wanted(1, 0.05, 0.3)
    items = [Item("a", Path("known 0.01")), Item("b", Path("known 0.5")), Item("c", Path("bad"))]
    rows = [row for group in predict_rows(Some(), items, wanted) for row in group]
    for form in ("csv", "parquet"):
        with RowLog(tmp_path / form, {}) as log:
            log.append(rows)
            log.finish(form, wanted)
    with (tmp_path / "csv").open(encoding="utf-8", newline="") as file:
        flat = list(csv.DictReader(file))
    table = parquet.read_table(tmp_path / "parquet").to_pylist()
    assert list(flat[0]) == list(table[0]) == [*wanted.columns, "error"]
    for row, text, cells in zip(rows[:2], flat, table, strict=False):
        assert text["label"] == cells["label"] == str(row["label"])
        assert text["set"] == cells["set"] == "|".join(map(str, row["set"]))
        assert cells["likeliest"] == row["likeliest"] and cells["unknown"] is row["unknown"]
        assert float(text["known"]) == cells["known"] == row["known"]
