"""Rows as FiftyOne and Label Studio import them: one JSON document, written image by image.

    fiftyone      `labels.json` of a FiftyOneImageClassificationDataset, with boxes of a FiftyOneImageDetectionDataset
                  (FiftyOne 1.x; docs.voxel51.com/user_guide/import_datasets.html)
    labelstudio   tasks with pre-annotations: Choices, with boxes RectangleLabels
                  (Label Studio 1.x; labelstud.io/guide/predictions)

Rows here are flat, as for a table, and have `path`, that of the image file; rows of boxes have `box` and `size` too,
(x0, y0, x1, y1) and (width, height) in pixels, and those of one image follow each other.
"""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Literal, get_args
from urllib.parse import quote

from daptune.data.boxes import SIDES
from daptune.text import printable_json

Tool = Literal["fiftyone", "labelstudio"]
TOOLS: tuple[Tool, ...] = get_args(Tool)
SERVED = "/data/local-files/?d="
"""Label Studio's address of a file below LOCAL_FILES_DOCUMENT_ROOT."""
_OWN = {"file", "label", "probability", "error", "path", "box", "size", *SIDES}  # columns with a place of their own
_log = logging.getLogger("daptune")
Row = dict[str, Any]


@contextmanager
def document(tool: Tool, stream: IO[str], *, boxes: bool = False) -> Iterator[Callable[[Row], None]]:
    """A function that writes a flat row into the document; the block's end completes it.

    What the format has no place for is told in the log.
    """
    writer = (_FiftyOne if tool == "fiftyone" else _LabelStudio)(stream, boxes)
    yield writer.add
    writer.close()


class _Document(ABC):
    """Collects the rows of one image and writes its entry when the next image begins."""

    begin, end = "", ""

    def __init__(self, stream: IO[str], boxes: bool) -> None:
        self.stream, self.boxes = stream, boxes
        self._rows: list[Row] = []
        self._lead = self.begin

    def add(self, row: Row) -> None:
        if self._rows and not (self.boxes and row["path"] == self._rows[0]["path"]):
            self._flush()
        self._rows.append(row)

    def close(self) -> None:
        self._flush()
        self.stream.write(f"{self._lead if self._lead == self.begin else ''}{self.end}")

    @abstractmethod
    def entry(self, rows: list[Row]) -> str | None:
        """JSON text of an image; None if it has no place."""

    def _flush(self) -> None:
        text = self.entry(self._rows) if self._rows else None
        self._rows = []
        if text is not None:
            self.stream.write(self._lead + printable_json(text))
            self._lead = ",\n"


class _FiftyOne(_Document):
    """Entries are keyed by the absolute path of the image, which the importer takes as the place of the media."""

    begin, end = '{"labels": {\n', "\n}}\n"

    def __init__(self, stream: IO[str], boxes: bool) -> None:
        super().__init__(stream, boxes)
        self._seen: set[int] = set()
        self._again = self._unread = 0

    def entry(self, rows: list[Row]) -> str | None:
        path = rows[0]["path"]
        if hash(path) in self._seen:
            self._again += len(rows)
            return None
        self._seen.add(hash(path))
        self._unread += sum("error" in row for row in rows)
        targets = [self._target(row) for row in rows if "error" not in row]
        value = targets if self.boxes else next(iter(targets), None)
        return f"{_json(path)}: {_json(value)}"

    def close(self) -> None:
        super().close()
        if self._unread:
            _log.warning("rows without a label, as they could not be read: %d; JSON lines say why", self._unread)
        if self._again:
            _log.warning("rows left out, as FiftyOne's format has one entry for an image file: %d", self._again)

    def _target(self, row: Row) -> Row:
        found: Row = {"label": str(row["label"]), "confidence": row["probability"]}
        if self.boxes:
            found["bounding_box"] = _shares(row)
        more = _more(row)
        return found | ({"attributes": more} if more else {})


class _LabelStudio(_Document):
    """Tasks refer to files through local file serving; what was not predicted is in the data of the task."""

    begin, end = "[\n", "\n]\n"

    def entry(self, rows: list[Row]) -> str:
        first, read = rows[0], [row for row in rows if "error" not in row]
        data: Row = {"image": SERVED + quote(first["path"].lstrip("/")), "file": first["file"]}
        errors = [row["error"] for row in rows if "error" in row]
        data |= ({} if self.boxes else _more(first)) | ({"error": "; ".join(errors)} if errors else {})
        task: Row = {"data": data}
        if read:
            results = [self._result(row, f"result{number}") for number, row in enumerate(read, start=1)]
            score = min(row["probability"] for row in read)
            task["predictions"] = [{"model_version": "daptune", "score": score, "result": results}]
        return _json(task)

    def _result(self, row: Row, number: str) -> Row:
        label = str(row["label"])
        if not self.boxes:
            about = {"id": number, "type": "choices", "from_name": "choice", "to_name": "image"}
            return about | {"value": {"choices": [label]}}
        width, height = row["size"]
        value = dict(zip(("x", "y", "width", "height"), (100 * share for share in _shares(row)), strict=True))
        return {
            "id": number, "type": "rectanglelabels", "from_name": "label", "to_name": "image",
            "original_width": width, "original_height": height, "image_rotation": 0, "score": row["probability"],
            "value": {**value, "rotation": 0, "rectanglelabels": [label]},
        }  # fmt: skip


def _shares(row: Row) -> list[float]:
    """Left, top, width and height of a box, from 0 to 1; what lies outside the picture is cut off."""
    (x0, y0, x1, y1), (width, height) = row["box"], row["size"]
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    return [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]


def _more(row: Row) -> Row:
    """What a row says beyond its label: other classes, whether the image is known, the prediction set."""
    return {name: value for name, value in row.items() if name not in _OWN}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
