"""Rows on disk: whatever ends the process, a run that goes on ends in the same file."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daptune.data.stream import Item
from daptune.errors import DataError
from daptune.predict.inputs import items
from daptune.predict.row_log import RowLog, check_out
from daptune.predict.rows import Wanted, predict_rows

from .fakes import Fake

NAMES = [f"{'bad' if number % 5 == 3 else 'ü'} {number}.png" for number in range(14)]
WHO = {"adapter": "abc", "images": ["a folder"], "top-k": 1}


def stream(names: list[str] = NAMES) -> Iterator[Item]:
    return items(names)


def go(out: Path, names: list[str] = NAMES, who: dict[str, Any] = WHO) -> Fake:
    """A run from where it was left to its end; returns the predictor, which knows what it saw."""
    fake, images = Fake(), stream(names)
    with RowLog(out, who) as log:
        log.match(images)
        for rows in predict_rows(fake, images, Wanted(1)):
            log.append(rows)
        log.finish("jsonl", Wanted(1))
    return fake


def begin(out: Path, batches: int) -> Path:
    """A run that ended behind so many batches of three; returns the file of its rows."""
    with RowLog(out, WHO) as log:
        for rows, _ in zip(predict_rows(Fake(), stream(), Wanted(1)), range(batches), strict=False):
            log.append(rows)
    return log.folder / "rows.jsonl"


def test_a_run_leaves_its_file_and_nothing_else(tmp_path: Path) -> None:
    go(tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()]
    assert [row["file"] for row in rows] == NAMES
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_cut_at_any_byte_it_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    go(tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(0, len(whole) + 1, 17):
        begun = begin(tmp_path / "rows.jsonl", 99)
        begun.write_bytes(whole[:cut])
        fake = go(tmp_path / "rows.jsonl")
        assert (tmp_path / "rows.jsonl").read_bytes() == whole
        assert fake.seen == NAMES[sum(end <= cut for end in ends) :], "no image is done twice"


def test_garbage_behind_the_rows_is_cut_off(tmp_path: Path) -> None:
    go(tmp_path / "whole.jsonl")
    for garbage in (b"\0" * 100, b"\xff\xfe}\n", b'{"file": 3}\n', b"[}\n"):
        begun = begin(tmp_path / "rows.jsonl", 2)
        begun.write_bytes(begun.read_bytes() + garbage)
        assert len(go(tmp_path / "rows.jsonl").seen) == 8
        assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_rows_are_counted_from_the_first(tmp_path: Path) -> None:
    begin(tmp_path / "rows.jsonl", 2)
    with RowLog(tmp_path / "rows.jsonl", WHO) as log:
        assert log.match(stream()) == log.done == 6
        assert log.read == 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"adapter": "xyz"}, r"holds a run with another adapter \(abc there, xyz here\)"),
        ({"images": ["b folder"]}, r"another images \(a folder there, b folder here\)"),
        ({"top-k": 3}, "another top-k"),
        ({"shard": "1/2"}, "another shard"),
    ],
)
def test_another_run_is_refused_and_the_rows_stay(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    begun = begin(tmp_path / "rows.jsonl", 2)
    before = begun.read_bytes()
    with pytest.raises(DataError, match=message):
        go(tmp_path / "rows.jsonl", who=WHO | changed)
    assert begun.read_bytes() == before
    go(tmp_path / "rows.jsonl")


def test_other_images_under_the_same_words_are_refused_and_the_rows_stay(tmp_path: Path) -> None:
    begun = begin(tmp_path / "rows.jsonl", 2)
    before = begun.read_bytes()
    for names, found in (["new.png", *NAMES], "new.png"), (NAMES[:4], "missing"):
        with pytest.raises(DataError, match=rf"rows of other images: row .* belongs to .* is now {found};"):
            go(tmp_path / "rows.jsonl", names)
        assert begun.read_bytes() == before
    assert len(go(tmp_path / "rows.jsonl", [*NAMES, "more.png"]).seen) == 9


def test_a_run_without_a_row_is_in_nobodys_way(tmp_path: Path) -> None:
    begin(tmp_path / "rows.jsonl", 0)
    go(tmp_path / "rows.jsonl", who=WHO | {"adapter": "xyz"})
    assert len((tmp_path / "rows.jsonl").read_bytes().splitlines()) == len(NAMES)


def test_two_at_once_are_one_too_many(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with (
        RowLog(tmp_path / "rows.jsonl", WHO),
        pytest.raises(DataError, match="this process is writing"),
    ):
        RowLog(tmp_path / "rows.jsonl", WHO)


def test_places_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; name a file in it"):
        RowLog(tmp_path, WHO)
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo.jsonl")
    for out, reason in (
        (tmp_path / "no" / "rows.csv", "No such file or directory"),
        (tmp_path / "file" / "rows.csv", "Not a directory"),
        (tmp_path / "fifo.jsonl", "it is not a regular file"),
        (Path("/proc/rows.csv"), ""),
    ):
        with pytest.raises(DataError, match=f"--out {out} cannot be written: {reason}"):
            check_out(out)
    check_out(tmp_path / "rows.jsonl")
    assert not (tmp_path / "rows.jsonl.partial").exists()
    begun = begin(tmp_path / "rows.jsonl", 1)
    begun.with_name("run.json").write_text("[")
    with pytest.raises(
        DataError, match=r"run\.json is damaged \(Expecting value: line 1 column 2 \(char 1\)\); remove"
    ):
        RowLog(tmp_path / "rows.jsonl", WHO)


SCRIPT = """
import sys
from pathlib import Path
from daptune.predict.inputs import items
from daptune.predict.row_log import RowLog
from daptune.predict.rows import Wanted, predict_rows
from tests.predict.fakes import Fake

images = items([f"{number}.png" for number in range(400)])
with RowLog(Path(sys.argv[1]), {}) as log:
    log.match(images)
    for rows in predict_rows(Fake(2, 0.005), images, Wanted(1)):
        log.append(rows)
    log.finish("csv", Wanted(1))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_and_started_again_no_row_is_lost_or_twice(tmp_path: Path) -> None:
    out, kills = tmp_path / "rows.csv", 0
    begun = tmp_path / "rows.csv.partial" / "rows.jsonl"
    command = [sys.executable, "-c", SCRIPT, str(out)]
    root = Path(__file__).parents[2]
    for aim in (40, 150):
        with subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root / "src")}) as process:
            while process.poll() is None and (not begun.exists() or begun.read_bytes().count(b"\n") < aim):
                time.sleep(0.01)
            process.kill()
        kills += process.returncode == -signal.SIGKILL
        assert not out.exists()
    subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root / "src")}, check=True)
    assert kills == 2
    rows = out.read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["file", *(f"{number}.png" for number in range(400))]
    assert not begun.parent.exists()
