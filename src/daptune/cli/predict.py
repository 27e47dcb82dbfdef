"""`daptune predict`: one row an image, in order, written as they come."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from daptune.cli import STDIN
from daptune.cli.console import progress, warnings_shown
from daptune.cli.options import PredictOptions, RunOptions
from daptune.data.inputs import image_files
from daptune.data.stream import Decoded
from daptune.errors import DataError

if TYPE_CHECKING:
    from daptune.classifier import FewShotClassifier
    from daptune.export.runtime import OnnxClassifier

Row = dict[str, Any]


def run(adapter: Path, paths: Sequence[str], predict: PredictOptions, options: RunOptions) -> int:
    """Do it; returns 2 when not a single image could be read. Raises DaptuneError for bad input."""
    if predict.top_k < 1:
        raise DataError(f"--top-k must be at least 1; found {predict.top_k}")
    if predict.json and predict.format == "csv":
        raise DataError("--json and --format csv exclude each other; leave one out")
    files = expand(paths)
    classifier = load_classifier(adapter, options)
    classifier.batch_size = options.batch_size or classifier.batch_size
    named_csv = predict.out is not None and predict.out.suffix.lower() == ".csv"
    as_csv = predict.format == "csv" or (predict.format is None and not predict.json and named_csv)
    read = 0
    with warnings_shown(), _opened(predict.out) as stream, progress(steps=True) as bar:
        write = _writer(stream, as_csv, predict.top_k)
        task = bar.add_task("predicting", total=len(files), note="")
        for row in predictions(classifier, files, predict.top_k):
            write(row)
            read += "error" not in row
            bar.advance(task)
    if not read:
        raise DataError(f"none of the {len(files)} files could be read; each row says why")
    return 0


def load_classifier(adapter: Path, options: RunOptions) -> "FewShotClassifier | OnnxClassifier":
    """What is named: an adapter, or an ONNX file of one, for which nothing is imported that needs torch."""
    if adapter.suffix.lower() == ".onnx":
        from daptune.export.runtime import OnnxClassifier

        if options.backbone or options.precision:
            raise DataError(f"{adapter} holds its backbone in its own precision; leave out --backbone and --precision")
        size = {} if options.batch_size is None else {"batch_size": options.batch_size}
        return OnnxClassifier(adapter, device=options.device, **size)
    from daptune.cli.setup import load_with

    return load_with(adapter, options)


def expand(paths: Sequence[str], stdin: Iterable[str] | None = None) -> list[Path]:
    """Files as they are, folders as the image files below them, `-` as the lines of standard input; in order.

    Raises DataError when that is nothing; a file that does not exist stays, to become a row with an error.
    """
    if not paths:
        raise DataError("no images given; name files, folders, or - for a list on standard input")
    found: list[Path] = []
    for path in paths:
        if path in ("-", STDIN):
            lines = (line.rstrip("\r\n") for line in (sys.stdin if stdin is None else stdin))
            found += [Path(line).expanduser() for line in lines if line.strip()]
        elif (folder := Path(path).expanduser()).is_dir():
            found += image_files(folder)
        else:
            found.append(folder)
    if not found:
        raise DataError(f"no image files in {', '.join(paths[:3])}; name files or folders with images")
    return found


def predictions(classifier: "FewShotClassifier | OnnxClassifier", files: Sequence[Path], top_k: int) -> Iterator[Row]:
    """Rows in the order of the files: file, label, probability, top; or file and error."""
    for batch, probabilities in classifier.stream(files):
        yield from _rows(batch, probabilities, classifier.classes_.tolist(), top_k)


def _rows(
    batch: Decoded[Any], probabilities: NDArray[np.float32], classes: list[Any], top_k: int
) -> list[Row]:
    rows: dict[int, Row] = {
        bad.index: {"file": _name(bad.source), "error": " ".join(_name(bad.reason).split())} for bad in batch.failed
    }
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    for index, source, order, values in zip(batch.indices, batch.sources, ranked, probabilities, strict=True):
        top = [{"label": classes[place], "probability": round(float(values[place]), 6)} for place in order]
        rows[index] = {"file": _name(source), **top[0]} | ({"top": top} if top_k > 1 else {})
    return [rows[index] for index in sorted(rows)]


def _writer(stream: IO[str], as_csv: bool, top_k: int) -> Callable[[Row], object]:
    """Writes one row: as a JSON line, or as CSV below a header."""
    if not as_csv:
        return lambda row: stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    ranks = ["", *(f"_{rank}" for rank in range(2, top_k + 1))]
    columns = ["file", *(name + rank for rank in ranks for name in ("label", "probability")), "error"]
    table = csv.DictWriter(stream, columns, lineterminator="\n")
    table.writeheader()

    def write(row: Row) -> object:
        flat: Row = {name: row[name] for name in ("file", "label", "probability", "error") if name in row}
        for rank, item in zip(ranks, row.get("top", ()), strict=False):
            flat |= {name + rank: value for name, value in item.items()}
        return table.writerow(flat)

    return write


def _name(source: object) -> str:
    """A path as text; bytes that are no UTF-8 are spelt out, so that every row can be written."""
    return os.fsencode(str(source)).decode("utf-8", "backslashreplace")


@contextmanager
def _opened(out: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that appears under its name when everything is written."""
    if out is None:
        yield sys.stdout
        return
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
