"""Progress of a prediction run on disk: written rows survive any interruption and are never duplicated.

Until OUT is complete, its rows are in the folder OUT.partial beside it:

    run.json     adapter, images and options of the run; a run with other values is refused
    rows.jsonl   one row per line, in the order of the images, synced to disk every second

A resumed run compares rows with images, drops an incomplete last row, and continues with the first image without a
row. OUT is created in one step once it is complete.
"""

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from daptune import files, locks
from daptune.data.stream import Item
from daptune.errors import DataError, foreign
from daptune.foreign import parse_json, read_json
from daptune.predict.rows import Format, Row, Wanted, json_line, write_rows

_SYNC_SECONDS = 1.0
_ROW_LINE = b"}\n"  # end of a complete row


def check_out(out: Path) -> None:
    """Raise DataError if the rows of a run cannot be written to `out`; for a check before any work."""
    if out.is_dir():
        raise DataError(f"--out {out} is a folder; name a file in it, such as {out / 'rows.csv'}")
    folder = _partial(out)
    there = folder.is_dir()
    with files.told(lambda why: DataError(f"--out {out} cannot be written: {why}; name another file")):
        folder.mkdir(exist_ok=True)
        if not there:
            folder.rmdir()
        if out.exists() and not out.is_file():
            raise OSError(errno.EINVAL, "it is not a regular file")
        if not os.access(out.parent, os.W_OK) or (there and not os.access(folder, os.W_OK)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


class RowLog:
    """The rows of the run that writes `out`; `identity` (JSON values) are the settings that determine them.

    done: rows so far. read: rows of readable images.
    Raises DataError if another process writes there or if existing rows belong to another identity.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        check_out(out)
        self.out = out
        self.folder = _partial(out)
        self.done = self.read = 0
        self._synced = 0.0
        with contextlib.ExitStack() as held, self._written():
            try:
                held.enter_context(locks.lock(out.with_name(f".{out.name}.lock")))
            except locks.Busy as busy:
                raise DataError(f"{busy} is writing {out}; wait for it, or give another --out") from None
            self.folder.mkdir(exist_ok=True)
            files.clear(self.folder)
            self._file = held.enter_context(open(self.folder / "rows.jsonl", "a+b", buffering=0))
            self._check(dict(identity))
            self._held = held.pop_all()

    def match(self, images: Iterator[Item]) -> int:
        """Skip the `images` that have rows and return their number; an incomplete row is dropped.

        Raises DataError if the rows belong to other images; the rows are kept.
        """
        end = 0
        with open(self.folder / "rows.jsonl", "rb") as file:
            for line in file:
                row = _row(line)
                if row is None:
                    break
                item = next(images, None)
                if item is None or item.name != row["file"]:
                    raise DataError(
                        f"{self.folder} holds rows of other images: row {self.done + 1} belongs to {row['file']}, but "
                        f"image {self.done + 1} is now {item.name if item else 'missing'}; {self._advice}"
                    )
                end += len(line)
                self.done += 1
                self.read += "error" not in row
        with self._written():
            self._file.truncate(end)
        return self.done

    def forget(self) -> None:
        """Drop the rows that are there."""
        with self._written():
            self._file.truncate(0)

    def append(self, rows: Iterable[Row]) -> None:
        rows = list(rows)
        with self._written():
            files.append(self._file, "".join(map(json_line, rows)).encode(), durable=False)
        self.done += len(rows)
        self.read += sum("error" not in row for row in rows)
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def rows(self) -> Iterator[Row]:
        with open(self.folder / "rows.jsonl", "rb") as file:
            yield from map(json.loads, file)

    def finish(self, form: Format, wanted: Wanted) -> None:
        """Write `out` atomically and remove the folder."""
        with self._written():
            self._sync()
            if form == "jsonl":
                self._file.close()  # Windows cannot move an open file
                os.replace(self.folder / "rows.jsonl", self.out)
            else:
                with files.replacing(self.out) as fresh:
                    write_rows(fresh, self.rows, form, wanted)
                self._file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._held.close()

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Turn an OSError into a line that says how to go on."""
        again = "run the same command again to resume"
        with files.told(lambda why: DataError(f"{self.out} was not written ({why}); {again}, or give another --out")):
            yield

    @property
    def _advice(self) -> str:
        return f"use the same ones to resume, give another --out, or remove {self.folder} to start again"

    def _check(self, identity: dict[str, Any]) -> None:
        """Compare with run.json; without that file or without rows, start again."""
        path = self.folder / "run.json"
        if not path.exists() or self._file.seek(0, os.SEEK_END) == 0:
            self._file.truncate(0)
            files.write(path, (json.dumps(identity, indent=1) + "\n").encode())
            return
        with foreign(lambda why: DataError(f"{path} is damaged ({why}); remove {self.folder} to start again")):
            found = read_json(path)
            changed = [name for name in identity if found.get(name) != identity[name]]
        if changed:
            name = changed[0]
            raise DataError(
                f"{self.folder} holds a run with another {name} ({_short(found.get(name))} there, "
                f"{_short(identity[name])} here); {self._advice}"
            )

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def _partial(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


def _row(line: bytes) -> Row | None:
    """A complete row, or None for an interrupted write or garbage after a power failure."""
    if not line.endswith(_ROW_LINE):
        return None
    try:
        row = parse_json(line, nan=True)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("file"), str) else None


def _short(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else "..." + text[-37:]
