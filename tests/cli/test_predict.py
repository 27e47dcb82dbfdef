"""`daptune predict`: a row a file, in order."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from daptune.predict.inputs import items

from ..conftest import CLASSES
from .conftest import Command


def test_predict_gives_a_row_a_file_in_order(daptune: Command, adapter: Path, pictures: Path) -> None:
    broken = pictures / "broken.png"
    broken.write_bytes(b"no image")
    done = daptune("predict", adapter, pictures / "red", broken, "missing.png", pictures / "blue_thing" / "3.png")
    assert done.code == 0, done.err
    files = [row["file"] for row in done.rows]
    reds = [str(pictures / "red" / f"{number}.png") for number in range(10)]
    assert files == [*reds, str(broken), "missing.png", str(pictures / "blue_thing" / "3.png")]
    assert [row["file"] for row in done.rows if "error" in row] == [str(broken), "missing.png"]
    assert all(row["label"] in CLASSES and 0 <= row["probability"] <= 1 for row in done.rows if "label" in row)


def test_predict_as_csv_with_several_classes(daptune: Command, adapter: Path, pictures: Path) -> None:
    done = daptune("predict", adapter, pictures / "red", "nothing.png", "--format", "csv", "--top-k", "2")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert list(rows[0]) == ["file", "label", "probability", "label_2", "probability_2", "error"]
    assert float(rows[0]["probability"]) >= float(rows[0]["probability_2"])
    assert rows[-1]["error"] and not rows[-1]["label"]
    assert daptune("predict", adapter, pictures / "red", "--out", "rows.csv").out == ""
    assert Path("rows.csv").read_text().startswith("file,label,probability,error\n")
    daptune("predict", adapter, pictures / "red", "--out", "rows.jsonl", "--top-k", "9", "--batch-size", "3")
    assert len(json.loads(Path("rows.jsonl").read_text().splitlines()[0])["top"]) == 3
    assert sorted(path.name for path in Path().iterdir()) == ["rows.csv", "rows.jsonl"]


def test_predict_reads_a_list_from_standard_input(
    daptune: Command, adapter: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [str(pictures / "red" / "1.png"), "", str(pictures / "blue_thing" / "2.png")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\r\n".join(lines)))
    assert [row["file"] for row in daptune("predict", adapter, "-").rows] == [lines[0], lines[2]]
    monkeypatch.setattr(sys, "stdin", io.StringIO("a b.png\n"))
    assert list(items(["-"])) == [("a b.png", Path("a b.png"))]


def test_predict_of_nothing_readable_is_an_error(daptune: Command, adapter: Path) -> None:
    done = daptune("predict", adapter, "a.png", "b.png")
    assert done.code == 2
    assert [set(row) for row in done.rows] == [{"file", "error"}] * 2
    assert done.err == "daptune: error: none of the 2 files could be read; each row says why\n"


def test_a_reader_that_has_enough_is_no_error(adapter: Path, pictures: Path) -> None:
    command = f"'{sys.executable}' -m daptune predict '{adapter}' '{pictures}' --batch-size 1 | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr and "error" not in done.stderr
