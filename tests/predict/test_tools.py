"""Documents for other tools, held against the formats that their pages show."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from daptune.data.stream import Item
from daptune.errors import DataError
from daptune.predict.rows import Wanted, predict_rows
from daptune.predict.tools import Tool, document

from .fakes import Fake

ROWS: list[dict[str, Any]] = [
    {"file": "a b.png", "path": "/p/a b.png", "label": 'ü "x"', "probability": 0.75, "label_2": "y", "known": 0.5},
    {"file": "gone.png", "path": "/p/gone.png", "error": "No such file."},
    {"file": "c.png", "path": "/p/c.png", "label": 7, "probability": 0.5},
]
BOXES: list[dict[str, Any]] = [
    {"file": "a.png", "path": "/p/a.png", "box": (10, 20, 60, 40), "size": (200, 80), "label": "x", "probability": 0.9},
    {"file": "a.png", "path": "/p/a.png", "box": (-5, 0, 200, 90), "size": (200, 80), "label": "y", "probability": 0.6},
    {"file": "a.png", "path": "/p/a.png", "box": (300, 0, 400, 80), "error": "outside"},
    {"file": "b.png", "path": "/p/b.png", "box": (0, 0, 1, 1), "error": "not an image"},
]


def written(tool: Tool, rows: list[dict[str, Any]], *, boxes: bool = False) -> Any:
    stream = io.StringIO()
    with document(tool, stream, boxes=boxes) as write:
        for row in rows:
            write(row)
    return json.loads(stream.getvalue())


def test_fiftyone_classifications() -> None:
    assert written("fiftyone", ROWS) == {
        "labels": {
            "/p/a b.png": {"label": 'ü "x"', "confidence": 0.75, "attributes": {"label_2": "y", "known": 0.5}},
            "/p/gone.png": None,
            "/p/c.png": {"label": "7", "confidence": 0.5},
        }
    }


def test_fiftyone_detections_are_shares_of_the_picture() -> None:
    assert written("fiftyone", BOXES, boxes=True) == {
        "labels": {
            "/p/a.png": [
                {"label": "x", "confidence": 0.9, "bounding_box": [0.05, 0.25, 0.25, 0.25]},
                {"label": "y", "confidence": 0.6, "bounding_box": [0, 0, 1, 1]},
            ],
            "/p/b.png": [],
        }
    }


def test_fiftyone_tells_what_it_has_no_place_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "daptune"):
        assert len(written("fiftyone", [*ROWS, ROWS[2], ROWS[0]])["labels"]) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "rows without a label, as they could not be read: 1; JSON lines say why",
        "rows left out, as FiftyOne's format has one entry for an image file: 2",
    ]


def test_label_studio_tasks_with_choices() -> None:
    first, gone, last = written("labelstudio", ROWS)
    assert first == {
        "data": {"image": "/data/local-files/?d=p/a%20b.png", "file": "a b.png", "label_2": "y", "known": 0.5},
        "predictions": [
            {
                "model_version": "daptune",
                "score": 0.75,
                "result": [
                    {
                        "id": "result1", "type": "choices", "from_name": "choice", "to_name": "image",
                        "value": {"choices": ['ü "x"']},
                    }
                ],
            }
        ],
    }  # fmt: skip
    assert gone == {"data": {"image": "/data/local-files/?d=p/gone.png", "file": "gone.png", "error": "No such file."}}
    assert last["predictions"][0]["result"][0]["value"] == {"choices": ["7"]}


def test_label_studio_tasks_with_rectangles_in_percent() -> None:
    (task, bad) = written("labelstudio", BOXES, boxes=True)
    (prediction,) = task["predictions"]
    assert task["data"]["error"] == "outside" and prediction["score"] == 0.6
    first, second = prediction["result"]
    assert first == {
        "id": "result1", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
        "original_width": 200, "original_height": 80, "image_rotation": 0, "score": 0.9,
        "value": {"x": 5, "y": 25, "width": 25, "height": 25, "rotation": 0, "rectanglelabels": ["x"]},
    }  # fmt: skip
    assert second["id"] != first["id"] and second["value"]["width"] == second["value"]["height"] == 100
    assert "predictions" not in bad and bad["data"]["error"] == "not an image"


@pytest.mark.parametrize("tool", ["fiftyone", "labelstudio"])
def test_a_document_without_rows_is_one_as_well(tool: Tool) -> None:
    assert written(tool, []) in ([], {"labels": {}})


def test_rows_name_files_from_the_root_of_the_system() -> None:
    items = [Item("x", Path("pictures/../1.png")), Item("y", Path("/q/bad.png"))]
    rows = [row for group in predict_rows(Fake(), items, Wanted(paths=True)) for row in group]
    assert [row["path"] for row in rows] == [str(Path.cwd() / "1.png"), "/q/bad.png"]
    with pytest.raises(DataError, match=r"t.parquet:1 is no image file, which other tools need; write .jsonl"):
        list(predict_rows(Fake(), [Item("t.parquet:1", b"bytes")], Wanted(paths=True)))
