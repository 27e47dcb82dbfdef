"""Rows of named images, in the same order: file, label, probability and optionally top; or file and error.

They are written as JSON lines, CSV or Parquet, a few at a time.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from daptune.data.stream import Item
from daptune.errors import extra
from daptune.predict.inputs import spelt
from daptune.predict.predictor import Predictor

T = TypeVar("T")
Row = dict[str, Any]
Format = Literal["jsonl", "csv", "parquet"]
_SUFFIXES: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
_GROUP = 1 << 14  # rows per Parquet row group, the only rows of the table in memory


def predict_rows(predictor: Predictor, images: Iterable[Item], top_k: int) -> Iterator[list[Row]]:
    """The rows of each batch, in the order of the images; only a few batches are in memory."""
    classes = predictor.classes_.tolist()
    for batch, probabilities in predictor.stream(images):
        rows: dict[int, Row] = {
            bad.index: {"file": bad.name, "error": " ".join(spelt(bad.reason).split())} for bad in batch.failed
        }
        for index, name, values in zip(batch.indices, batch.names, probabilities, strict=True):
            top = [{"label": label, "probability": share} for label, share in likeliest(classes, values, top_k)]
            rows[index] = {"file": name, **top[0], **({"top": top} if top_k > 1 else {})}
        yield [rows[index] for index in sorted(rows)]


def likeliest(
    classes: Sequence[str | int], probabilities: NDArray[np.float32], count: int
) -> list[tuple[str | int, float]]:
    """The `count` most likely classes by probabilities (C,), most likely first; probabilities rounded to 6 digits."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [(classes[place], round(float(probabilities[place]), 6)) for place in order]


def format_of(out: Path | None) -> Format:
    """Format by file suffix; JSON lines for any other suffix."""
    return "jsonl" if out is None else _SUFFIXES.get(out.suffix.lower(), "jsonl")


def json_line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def line_writer(form: Format, stream: IO[str], top_k: int) -> Callable[[Row], object]:
    """A function that writes one row as a JSON line, or as CSV below a header."""
    if form == "jsonl":
        return lambda row: stream.write(json_line(row))
    table = csv.DictWriter(stream, [*_label_columns(top_k), "error"], lineterminator="\n")
    table.writeheader()
    return lambda row: table.writerow(_flat(row))


def _flat(row: Row) -> Row:
    found: Row = {name: row[name] for name in ("file", "label", "probability", "error") if name in row}
    for rank, item in enumerate(row.get("top", ())[1:], start=2):
        found |= {f"{name}_{rank}": value for name, value in item.items()}
    return found


def check_parquet(name: str) -> None:
    """Raise MissingExtraError without pyarrow; called before any work."""
    with extra("parquet", f"{name} needs pyarrow", " (or write .csv or .jsonl)"):
        import pyarrow.parquet  # noqa: F401


def write_rows(path: Path, rows: Callable[[], Iterable[Row]], form: Format, top_k: int) -> None:
    """Write the rows to a file. Parquet reads them twice, first to find the type of the labels."""
    if form == "parquet":
        _write_parquet(path, rows, top_k)
        return
    with open(path, "w", encoding="utf-8", newline="") as file:
        write = line_writer(form, file, top_k)
        for row in rows():
            write(row)


def _write_parquet(path: Path, rows: Callable[[], Iterable[Row]], top_k: int) -> None:
    """Columns as in CSV: strings, doubles, and int64 for integer labels; missing values are null."""
    import pyarrow
    from pyarrow import parquet

    label = next((row["label"] for row in rows() if "label" in row), "")
    kinds = {"label": pyarrow.int64() if isinstance(label, int) else pyarrow.string(), "probability": pyarrow.float64()}
    columns = [(name, kinds.get(name.partition("_")[0], pyarrow.string())) for name in _label_columns(top_k)]
    schema = pyarrow.schema([*columns, ("error", pyarrow.string())])
    with parquet.ParquetWriter(path, schema) as writer:
        for group in batched(map(_flat, rows()), _GROUP):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


def _label_columns(top_k: int) -> list[str]:
    ranks = ["", *(f"_{rank}" for rank in range(2, top_k + 1))]
    return ["file", *(name + rank for rank in ranks for name in ("label", "probability"))]


def batched(values: Iterable[T], size: int) -> Iterator[list[T]]:
    values = iter(values)
    while group := list(islice(values, size)):
        yield group
