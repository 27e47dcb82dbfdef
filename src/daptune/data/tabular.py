"""CSV, TSV and Parquet tables with the columns path and label, and split where the table has several."""

import csv
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from daptune.data.backslashes import CAUSE, has_backslashes, with_slashes
from daptune.data.labels import check_single, index_splits, is_blank
from daptune.data.multi_label import cell_text, in_several
from daptune.data.table import ImageSource, ImageTable, Splits, image_cell, split_kind
from daptune.errors import DataError, extra, foreign
from daptune.files import told
from daptune.foreign import megabytes, parse_json
from daptune.regular import check_regular, open_regular

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")
IMAGE_COLUMNS = ("path", "image", "file", "filename", "file_name", "filepath", "image_path", "img")
LABEL_COLUMNS = ("label", "class", "target", "class_name", "category")
SPLIT_COLUMNS = ("split", "subset", "fold", "partition")
MOST_ROWS = 3_000_000
"""Rows of a table to learn from, which are held in memory; ImageNet has 1.3 million. Prediction reads row by row."""
MOST_COLUMNS = 1_000
GROWTH = 50
"""How many times its size a Parquet file may unpack to, and _FREE besides; columns of labels shrink well."""
_FREE = 64 << 20
_BATCH = 128  # rows
_LARGEST_METADATA = 4_000_000  # bytes
_PROBES = 1_000  # images that are looked for: a table without any of them is of another folder

_log = logging.getLogger("daptune")


def read_table_file(path: Path, label_names: Sequence[str] | None = None, *, multi_label: bool = False) -> Splits:
    """Read a table; relative paths start from its folder. Without a split column every row is train.

    multi_label: a cell of the label column holds any number of labels, `a|b`.
    """
    columns, names = _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else (_read_csv(path), None)
    image, label, split = (find_column(columns, wanted) for wanted in (IMAGE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS))
    if image is None or label is None:
        raise DataError(
            f"{path.name}: expected a column for images ({', '.join(IMAGE_COLUMNS[:4])}) and one for labels "
            f"({', '.join(LABEL_COLUMNS[:3])}), found {', '.join(columns) or 'no columns'}; rename them in "
            "the header."
        )
    cells = [cell_text(cell) for cell in columns[label]] if multi_label else columns[label]
    parts = _group(path, columns[image], cells, columns[split] if split is not None else None, blank=multi_label)
    if not parts:
        raise DataError(f"{path.name}: expected rows below the header, found none.")
    if multi_label:
        known = {str(text): place for place, text in enumerate(dict.fromkeys(cells))}
        tables = {
            kind: ImageTable(tuple(images), np.array([known[str(text)] for text in own]), tuple(known), path.parent)
            for kind, (images, own) in parts.items()
        }
        return in_several(Splits.of(tables), names if label_names is None else label_names, path.name)
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
    unread = foreign(lambda why: DataError(f"{path} cannot be read as a table ({why}); save it as CSV in UTF-8."))
    opened = told(lambda why: DataError(f"{path} cannot be read ({why}); name a CSV file."))
    with unread, opened, io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as stream:
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
    if width is None:
        raise DataError(f"{path.name} is empty; expected the columns {columns} and rows below.")


def _read_csv(path: Path) -> dict[str, list[object]]:
    header, *rows = islice(csv_rows(path), MOST_ROWS + 2)
    _check_rows(path, len(rows))
    return {name: [row[i].strip() for row in rows] for i, name in enumerate(header)}


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """A pyarrow.parquet.ParquetFile. Raises MissingExtraError without pyarrow, DataError for what is none."""
    with extra("parquet", f"reading {path.name} needs pyarrow", " (or save the table as CSV)."):
        from pyarrow import parquet
    with told(lambda why: DataError(f"{path} cannot be read as Parquet ({why}).")):
        check_regular(path)
    unread = foreign(lambda why: DataError(f"{path} cannot be read as Parquet ({why})."))
    with unread, parquet.ParquetFile(path) as table:
        about = table.metadata
        groups = [about.row_group(place) for place in range(about.num_row_groups)]
        size, unpacked = path.stat().st_size, sum(group.total_byte_size for group in groups)
        if unpacked > GROWTH * size + _FREE:
            raise ValueError(f"it unpacks to {megabytes(unpacked)}, far more than its {megabytes(size)}")
        yield table


def _columns(path: Path, file: Any, names: Sequence[str]) -> dict[str, list[object]]:
    """The columns of a Parquet file, a few rows at a time, so that what they unpack to is known as it grows."""
    _check_rows(path, file.metadata.num_rows)
    most = GROWTH * path.stat().st_size + _FREE
    found: dict[str, list[object]] = {name: [] for name in names}
    for batch in file.iter_batches(_BATCH, columns=list(names), use_threads=False):
        for place, name in enumerate(names):
            cells = batch.column(place).to_pylist()
            most -= sum(map(_size, cells))  # a column of repeated texts holds each once, and a list of them does not
            if most < 0:
                raise ValueError("it unpacks to far more than its size")
            found[name] += cells
    return found


def _size(cell: object) -> int:
    """Bytes of a text or of an image as data sets hold it."""
    if isinstance(cell, dict):
        return sum(map(_size, cell.values()))
    return len(cell) if isinstance(cell, str | bytes) else 0


def _check_rows(path: Path, rows: int) -> None:
    if rows > MOST_ROWS:
        raise DataError(f"{path.name} has {rows:,} rows or more; at most {MOST_ROWS:,} are read: divide it.")


def _read_parquet(path: Path) -> tuple[dict[str, list[object]], Sequence[str] | None]:
    """Columns, and the names of integer labels where a Hugging Face data set wrote the file."""
    with open_parquet(path) as file:
        schema = file.schema_arrow
        if len(schema.names) > MOST_COLUMNS:
            raise ValueError(f"it has {len(schema.names):,} columns")
        wanted = [find_column(schema.names, known) for known in (IMAGE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS)]
        label = wanted[1]
        names = None if label is None else _label_names(schema.metadata or {}, label)
        if None in wanted[:2]:  # the caller says which one is lacking
            return {name: [] for name in schema.names}, names
        return _columns(path, file, [name for name in wanted if name is not None]), names


def _label_names(metadata: Mapping[bytes, bytes], label: str) -> Sequence[str] | None:
    """The names of the labels, where Hugging Face's `datasets` wrote them down in its own form; else None."""
    value: Any = metadata.get(b"huggingface")
    if value is None:
        return None
    value = parse_json(value, most=_LARGEST_METADATA)
    for key in ("info", "features", label, "names"):
        if not isinstance(value, dict):
            raise ValueError("its metadata of huggingface are not as `datasets` writes them")
        value = value.get(key)
        if value is None:
            return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("its metadata of huggingface give no list of names for the labels")
    return value


def _group(
    path: Path, images: Sequence[object], labels: Sequence[object], splits: Sequence[object] | None, *, blank: bool
) -> dict[str, tuple[list[ImageSource], list[object]]]:
    """Rows by split; a path may stand in the table again with the same label, and counts once a split.

    blank: labels may be.
    """
    parts: dict[str, tuple[list[ImageSource], list[object]]] = {}
    seen: dict[Path, tuple[int, set[str]]] = {}
    repeated = 0
    for i, (cell, label) in enumerate(zip(images, labels, strict=True)):
        where = f"{path.name}, row {i + 1}"
        if cell in (None, "") or (is_blank(label) and not blank):
            hint = "" if cell in (None, "") else ", or type --multi-label for images without a label"
            raise DataError(f"{where}: expected an image and a label, found a blank; fill it in or drop the row{hint}.")
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
    probes = [*islice(seen, 20), *islice(seen, 0, None, -(-len(seen) // _PROBES) or 1)]
    if probes and not any(image.is_file() for image in probes):
        few = "" if len(seen) <= _PROBES else f"{_PROBES:,} looked for of "
        raise DataError(
            f"{path.name}: none of {few}its {len(seen)} images exists, for instance {next(iter(seen))}; "
            f"{CAUSE if slashed else 'paths start from the table folder'}."
        )
    if slashed:
        _log.warning("%s: paths with backslashes are read with slashes where the file is there so", path.name)
    return parts
