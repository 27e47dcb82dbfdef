"""Rows of named images, in the same order: file, label, probability and optionally top; or file and error.

They are written as JSON lines, CSV or Parquet, or for another tool (tools.py), a few at a time.
"""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from daptune.data.boxes import SIDES, Crop
from daptune.data.stream import Item
from daptune.data.table import ImageSource
from daptune.errors import DataError, extra
from daptune.metrics import prediction_sets
from daptune.predict.inputs import spelt
from daptune.predict.predictor import Answers, Predictor, of_set
from daptune.predict.tools import TOOLS, Tool, document
from daptune.text import printable, printable_json

UNKNOWN = "unknown"
T = TypeVar("T")
Row = dict[str, Any]
Format = Literal["jsonl", "csv", "parquet", Tool]
_SUFFIXES: dict[str, Format] = {
    "": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_GROUP = 1 << 14  # rows per Parquet row group, the only rows of the table in memory


@dataclass(frozen=True)
class Wanted:
    """What a row says of an image.

    top_k    classes, most likely first
    reject   the share of known images that may be called UNKNOWN; None: every image has a class
    sets     the share of images whose prediction set may miss the truth; None: no sets
    paths    the absolute path of the image file, which other tools ask for
    boxes    images are parts of pictures, and rows have their boxes

    A predictor with thresholds gives `labels` in place of `label` and `probability`: the classes from their threshold
    on. As columns, both are joined by "|".
    """

    top_k: int = 1
    reject: float | None = None
    sets: float | None = None
    paths: bool = False
    boxes: bool = False

    @property
    def columns(self) -> list[str]:
        """Of CSV and Parquet, without `error`."""
        ranks = ["", *(f"_{rank}" for rank in range(2, self.top_k + 1))]
        known = ["unknown", "known", "likeliest"] if self.reject is not None else []
        own = [name + rank for rank in ranks for name in ("label", "probability")]
        return ["file", *(SIDES if self.boxes else ()), *own, *known, *(["set"] if self.sets is not None else [])]


def predict_rows(predictor: Predictor, images: Iterable[Item], wanted: Wanted) -> Iterator[list[Row]]:
    """The rows of each batch, in the order of the images; only a few batches are in memory.

    Raises DataError if the predictor cannot say what is wanted.
    """
    predictor.check_judging(wanted.reject, wanted.sets)
    classes, levels = predictor.classes_.tolist(), predictor.thresholds
    if wanted.paths:
        predictor.check_single_label("the format of another tool")
    if wanted.reject is not None and UNKNOWN in classes:
        raise DataError(f"a class is called {UNKNOWN!r}, which --reject says of images of no class; rename the class")
    for batch, answers in predictor.stream(images):
        rows: dict[int, Row] = {
            bad.index: {**_found(bad.name, bad.source, wanted), "error": " ".join(spelt(bad.reason).split())}
            for bad in batch.failed
        }
        for place, (index, name, source) in enumerate(zip(batch.indices, batch.names, batch.sources, strict=True)):
            if levels is None:
                said = _said(classes, answers, place, predictor.truth, wanted)
            else:
                said = _said_of_several(classes, answers.probabilities[place], levels, wanted)
            rows[index] = {**_found(name, source, wanted), **said}
        yield [rows[index] for index in sorted(rows)]


def _found(name: str, source: ImageSource, wanted: Wanted) -> Row:
    """What a row says of where its image is."""
    row: Row = {"file": name}
    if isinstance(source, Crop):
        row["box"] = list(source.box)
        if wanted.paths and source.size is not None:
            row["size"] = list(source.size)
    if wanted.paths:
        path = source.path if isinstance(source, Crop) else source
        if not isinstance(path, Path):
            raise DataError(f"{name} is no image file, which other tools need; write .jsonl, .csv or .parquet")
        row["path"] = spelt(os.path.abspath(path))
    return row


def _said(classes: Sequence[Any], answers: Answers, place: int, truth: Sequence[float], wanted: Wanted) -> Row:
    """What a row says of the image at a place of the batch."""
    values = answers.probabilities[place]
    top = [{"label": label, "probability": share} for label, share in likeliest(classes, values, wanted.top_k)]
    row: Row = {**top[0], **({"top": top} if wanted.top_k > 1 else {})}
    if wanted.reject is not None and answers.known is not None:
        known = float(answers.known[place])
        unknown = known <= wanted.reject
        row |= {"unknown": unknown, "known": round(known, 4), "likeliest": row["label"]}
        row["label"] = UNKNOWN if unknown else row["label"]
    if wanted.sets is not None:
        row["set"] = of_set(classes, values, prediction_sets(truth, values[None], wanted.sets)[0])
    return row


def _said_of_several(
    classes: Sequence[Any], probabilities: NDArray[np.float32], levels: NDArray[np.float32], wanted: Wanted
) -> Row:
    """The classes from their threshold on, and the `top_k` most likely ones if more than one is asked for."""
    ranked = [
        {"label": label, "probability": share} for label, share in likeliest(classes, probabilities, len(classes))
    ]
    present = set(of_set(classes, probabilities, probabilities >= levels))
    top = {"top": ranked[: wanted.top_k]} if wanted.top_k > 1 else {}
    return {"labels": [each for each in ranked if each["label"] in present], **top}


def likeliest(
    classes: Sequence[str | int], probabilities: NDArray[np.float32], count: int
) -> list[tuple[str | int, float]]:
    """The `count` most likely classes by probabilities (C,), most likely first; probabilities rounded to 6 digits."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [(classes[place], round(float(probabilities[place]), 6)) for place in order]


def format_of(out: Path | None) -> Format:
    """Format by file suffix; JSON lines without one. Raises DataError for a suffix of another kind."""
    suffix = "" if out is None else out.suffix.lower()
    if suffix not in _SUFFIXES:
        raise DataError(
            f"--out {out}: rows are written as .jsonl, .csv or .parquet; name such a file, or say --format as well"
        )
    return _SUFFIXES[suffix]


def json_line(row: Row) -> str:
    return printable_json(json.dumps(row, ensure_ascii=False)) + "\n"


@contextmanager
def writing(form: Format, stream: IO[str], wanted: Wanted) -> Iterator[Callable[[Row], object]]:
    """A function that writes one row; documents of other tools are complete at the end of the block."""
    if form not in TOOLS:
        yield _line_writer(form, stream, wanted)
        return
    with document(form, stream, boxes=wanted.boxes) as write:
        yield lambda row: write(_flat(row) | {name: row[name] for name in ("box", "size") if name in row})


def _line_writer(form: Format, stream: IO[str], wanted: Wanted) -> Callable[[Row], object]:
    """A function that writes one row as a JSON line, or as CSV below a header."""
    if form == "jsonl":
        return lambda row: stream.write(json_line(row))
    table = csv.DictWriter(stream, [*wanted.columns, "error"], lineterminator="\n")
    table.writeheader()
    if stream.isatty():  # in a file the names stand as they are
        return lambda row: table.writerow({name: printable(value) for name, value in _flat(row).items()})
    return lambda row: table.writerow(_flat(row))


def _flat(row: Row) -> Row:
    """The columns of a row; sets and several labels are separated by "|"."""
    found: Row = {name: value for name, value in row.items() if name not in ("top", "set", "box", "size", "labels")}
    if "labels" in row:
        found |= {name: "|".join(str(each[name]) for each in row["labels"]) for name in ("label", "probability")}
    found |= zip(SIDES, row.get("box", ()), strict=False)
    if "set" in row:
        found["set"] = "|".join(map(str, row["set"]))
    for rank, item in enumerate(row.get("top", ())[1:], start=2):
        found |= {f"{name}_{rank}": value for name, value in item.items()}
    return found


def check_parquet(name: str) -> None:
    """Raise MissingExtraError without pyarrow; called before any work."""
    with extra("parquet", f"{name} needs pyarrow", " (or write .csv or .jsonl)"):
        import pyarrow.parquet  # noqa: F401


def write_rows(path: Path, rows: Callable[[], Iterable[Row]], form: Format, wanted: Wanted) -> None:
    """Write the rows to a file. Parquet reads them twice, first to find the type of the labels."""
    if form == "parquet":
        _write_parquet(path, rows, wanted)
        return
    with open(path, "w", encoding="utf-8", newline="") as file, writing(form, file, wanted) as write:
        for row in rows():
            write(row)


def _write_parquet(path: Path, rows: Callable[[], Iterable[Row]], wanted: Wanted) -> None:
    """Columns as in CSV: strings, doubles, and int64 for integer labels; missing values are null.

    Labels are strings where UNKNOWN may stand beside them.
    """
    import pyarrow
    from pyarrow import parquet

    first: Row = next((row for row in rows() if "error" not in row), {})
    several, ranked = "labels" in first, first.get("top", [first])[0]
    label = first.get("likeliest", ranked.get("label", ""))
    own = pyarrow.int64() if isinstance(label, int) else pyarrow.string()
    kinds = {"label": own if wanted.reject is None else pyarrow.string(), "probability": pyarrow.float64()}
    kinds |= {"unknown": pyarrow.bool_(), "known": pyarrow.float64(), "likeliest": own}
    kinds |= dict.fromkeys(SIDES, pyarrow.float64())
    joined = {"label", "probability"} if several else set()
    columns = [
        (name, pyarrow.string() if name in joined else kinds.get(name.partition("_")[0], pyarrow.string()))
        for name in wanted.columns
    ]
    schema = pyarrow.schema([*columns, ("error", pyarrow.string())])
    with parquet.ParquetWriter(path, schema) as writer:
        for group in batched(map(_flat, rows()), _GROUP):
            if wanted.reject is not None:
                group = [row | {"label": str(row["label"])} if "label" in row else row for row in group]
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


def batched(values: Iterable[T], size: int) -> Iterator[list[T]]:
    values = iter(values)
    while group := list(islice(values, size)):
        yield group
