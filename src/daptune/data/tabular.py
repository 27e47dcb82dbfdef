"""CSV, TSV and Parquet tables with the columns path and label, and split where the table has several."""

import csv
import io
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daptune.data.backslashes import CAUSE, has_backslashes, with_slashes
from daptune.data.labels import check_single, index_splits, is_blank
from daptune.data.table import ImageSource, ImageTable, Splits, image_cell, split_kind
from daptune.errors import DataError, extra
from daptune.files import reason
from daptune.regular import check_regular, open_regular

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")
IMAGE_COLUMNS = ("path", "image", "file", "filename", "file_name", "filepath", "image_path", "img")
LABEL_COLUMNS = ("label", "class", "target", "class_name", "category")
SPLIT_COLUMNS = ("split", "subset", "fold", "partition")

_log = logging.getLogger("daptune")


def read_table_file(path: Path, label_names: Sequence[str] | None = None) -> Splits:
    """Read a table; relative paths start from its folder. Without a split column every row is train."""
    columns, names = _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else (_read_csv(path), None)
    image, label, split = (find_column(columns, wanted) for wanted in (IMAGE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS))
    if image is None or label is None:
        raise DataError(
            f"{path.name}: expected a column for images ({', '.join(IMAGE_COLUMNS[:4])}) and one for labels "
            f"({', '.join(LABEL_COLUMNS[:3])}), found {', '.join(columns) or 'no columns'}; rename them in "
            "the header."
        )
    parts = _group(path, columns[image], columns[label], columns[split] if split is not None else None)
    if not parts:
        raise DataError(f"{path.name}: expected rows below the header, found none.")
    check_single([label for _, labels in parts.values() for label in labels], path.name)
    given = {kind: labels for kind, (_, labels) in parts.items()}
    labels, classes = index_splits(given, names if label_names is None else label_names, where=path.name)
    return Splits.of(
        {kind: ImageTable(tuple(images), labels[kind], classes, path.parent) for kind, (images, _) in parts.items()}
    )


def find_column(columns: Sequence[str] | dict[str, list[object]], wanted: Sequence[str]) -> str | None:
    """The first column called like one of `wanted`, case and outer blanks aside."""
    known = {str(name).strip().lower(): name for name in reversed(list(columns))}
    return next((known[name] for name in wanted if name in known), None)


def csv_rows(path: Path, columns: str = "path,label") -> Iterator[list[str]]:
    """Rows of a CSV or TSV that are not blank, the header first, read as they are asked for.

    Raises DataError when it cannot be read, is empty, or has a row of another length than the header.
    """
    width = None
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            stream.seek(0)
            # spreadsheets write ';' where ',' is the decimal point
            delimiter = max("\t,;" if path.suffix.lower() == ".tsv" else ",;\t", key=header.count)
            rows = (row for row in csv.reader(stream, delimiter=delimiter, strict=True) if any(map(str.strip, row)))
            for number, row in enumerate(rows):
                width = len(row) if width is None else width
                if len(row) != width:
                    raise DataError(
                        f"{path.name}, row {number}: expected {width} values as in the header, found "
                        f"{len(row)}; put quotes around values that contain {delimiter!r}."
                    )
                yield row
    except OSError as error:
        raise DataError(f"{path} cannot be read ({reason(error)}); name a CSV file.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table ({error}); save it as CSV in UTF-8.") from None
    if width is None:
        raise DataError(f"{path.name} is empty; expected the columns {columns} and rows below.")


def _read_csv(path: Path) -> dict[str, list[object]]:
    header, *rows = csv_rows(path)
    return {name: [row[i].strip() for row in rows] for i, name in enumerate(header)}


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """A pyarrow.parquet.ParquetFile. Raises MissingExtraError without pyarrow, DataError for what is none."""
    with extra("parquet", f"reading {path.name} needs pyarrow", " (or save the table as CSV)."):
        from pyarrow import ArrowException, parquet
    try:
        check_regular(path)
        with parquet.ParquetFile(path) as table:
            yield table
    except (OSError, ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}).") from None


def _read_parquet(path: Path) -> tuple[dict[str, list[object]], Sequence[str] | None]:
    """Columns, and the names of integer labels where a Hugging Face data set wrote the file."""
    with open_parquet(path) as file:
        table = file.read()
    names = None
    label = find_column(table.column_names, LABEL_COLUMNS)
    metadata = (table.schema.metadata or {}).get(b"huggingface")
    if metadata and label is not None:
        names = json.loads(metadata).get("info", {}).get("features", {}).get(label, {}).get("names")
    return {name: table.column(name).to_pylist() for name in table.column_names}, names


def _group(
    path: Path, images: Sequence[object], labels: Sequence[object], splits: Sequence[object] | None
) -> dict[str, tuple[list[ImageSource], list[object]]]:
    """Rows by split; a path may stand in the table again with the same label, and counts once a split."""
    parts: dict[str, tuple[list[ImageSource], list[object]]] = {}
    seen: dict[Path, tuple[int, set[str]]] = {}
    repeated = 0
    for i, (cell, label) in enumerate(zip(images, labels, strict=True)):
        where = f"{path.name}, row {i + 1}"
        if cell in (None, "") or is_blank(label):
            raise DataError(f"{where}: expected an image and a label, found a blank; fill it in or drop the row.")
        kind = "train" if splits is None else split_kind(str(splits[i]))
        if kind is None:
            raise DataError(f"{where}: expected the split train, val or test, found {splits and splits[i]!r}.")
        image = image_cell(cell)
        if isinstance(image, Path):
            image = with_slashes(path.parent, str(image))
            first, kinds = seen.setdefault(image, (i, set()))
            if labels[first] != label:
                raise DataError(
                    f"{where}: {cell} is labelled {label!r} here and {labels[first]!r} in row "
                    f"{first + 1}; keep one of the two."
                )
            if kind in kinds:
                repeated += 1
                continue
            kinds.add(kind)
        part = parts.setdefault(kind, ([], []))
        part[0].append(image)
        part[1].append(label)
    if repeated:
        _log.warning("%s: %d repeated rows were left out", path.name, repeated)
    if shared := sum(len(kinds) > 1 for _, kinds in seen.values()):
        _log.warning("%s: %d images stand in more than one split", path.name, shared)
    slashed = has_backslashes(cell for cell in images if isinstance(cell, str))
    if seen and not any(image.is_file() for image in seen):
        cause = CAUSE if slashed else "paths start from the table's folder"
        raise DataError(
            f"{path.name}: none of its {len(seen)} images exists, for instance {next(iter(seen))}; {cause}."
        )
    if slashed:
        _log.warning("%s: paths with backslashes are read with slashes where the file is there so", path.name)
    return parts
