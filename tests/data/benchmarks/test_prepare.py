import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from daptune.data.benchmarks.inventory import check
from daptune.data.benchmarks.prepare import DONE, FAILED, THERE, prepare
from daptune.data.benchmarks.registry import BENCHMARKS, Benchmark

from .server import FileServer, serving
from .trees import build


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as server:
        yield server


def packed(folder: Path, inside: str, *, zipped: bool) -> bytes:
    """A folder's files below `inside`, as an archive."""
    stream = io.BytesIO()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if zipped:
        with zipfile.ZipFile(stream, "w") as archive:
            for path in files:
                archive.write(path, f"{inside}/{path.relative_to(folder).as_posix()}")
    else:
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for path in files:
                tar.add(path, f"{inside}/{path.relative_to(folder).as_posix()}")
    return stream.getvalue()


def published(name: str, elsewhere: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """A miniature built elsewhere and put on the server in archives of the true form, with a record that says so."""
    record, _ = build(name, elsewhere)
    folder = elsewhere / record.folder
    downloads = []
    for entry in record.downloads:
        if entry.file == record.split_file:
            downloads.append(replace(entry, address=server.address("none.json")))
            continue
        if not entry.unpack:
            content = (folder / entry.file).read_bytes()
        else:
            inside, target = entry.unpack[0]
            content = packed(folder / target, inside, zipped=entry.file.endswith(".zip") and not entry.nested)
        if entry.nested:
            stream = io.BytesIO()
            with zipfile.ZipFile(stream, "w") as outer:
                outer.writestr(entry.nested, content)
            content = stream.getvalue()
        server.files[entry.file] = content
        md5 = hashlib.md5(content).hexdigest() if entry.md5 else ""
        kept = entry.unpack[:1]  # Food101's meta/ is not in the miniature
        downloads.append(replace(entry, address=server.address(entry.file), md5=md5, unpack=kept))
    made = replace(record, downloads=tuple(downloads))
    monkeypatch.setitem(BENCHMARKS, name, made)
    return made


FETCHED = [
    record.name for record in BENCHMARKS.values() if any(entry.file != record.split_file for entry in record.downloads)
]


@pytest.mark.parametrize("name", FETCHED)
def test_what_is_fetched_is_a_whole_data_set(
    name: str, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = published(name, tmp_path / "elsewhere", server, monkeypatch)
    told: set[str] = set()

    def watch(file: str):
        told.add(file)
        return lambda done, total: None

    steps = prepare(record, tmp_path / "data", watch)
    outcomes = {step.download.file: step.outcome for step in steps}
    assert outcomes == {entry.file: FAILED if entry.file == record.split_file else DONE for entry in record.downloads}
    assert told == set(outcomes)
    assert check(name, tmp_path / "data").problems == ()
    left = [path.name for path in (tmp_path / "data" / record.folder).iterdir()]
    assert not [file for file in left if file.endswith((".zip", ".tar", ".gz", ".tgz", ".part"))]

    asked = len(server.asked)
    again = prepare(record, tmp_path / "data")
    assert {step.outcome for step in again if step.download.file != record.split_file} == {THERE}
    assert len(server.asked) - asked == (1 if record.split_file else 0)  # the split alone is asked for again


def test_fetching_that_broke_off_goes_on(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = published("dtd", tmp_path / "elsewhere", server, monkeypatch)
    server.break_after = 500
    first, _ = prepare(record, tmp_path)
    assert first.outcome == FAILED
    assert "run the same command to resume" in first.reason
    second, _ = prepare(record, tmp_path)
    assert second.outcome == DONE
    assert ("dtd-r1.0.1.tar.gz", "bytes=500-") in server.asked
    assert check("dtd", tmp_path).problems == ()


def test_a_split_file_that_is_none_is_not_kept(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = published("eurosat", tmp_path / "elsewhere", server, monkeypatch)
    server.files["none.json"] = b'{"quota": "exceeded"}'
    _, split = prepare(record, tmp_path)
    assert split.outcome == FAILED
    assert not (tmp_path / "eurosat" / record.split_file).exists()
    server.files["none.json"] = json.dumps({"train": [["Forest/forest_0000.jpg", 0, "Forest"]]}).encode()
    _, split = prepare(record, tmp_path)
    assert split.outcome == DONE
    assert (tmp_path / "eurosat" / record.split_file).is_file()


def test_archives_are_kept_when_asked(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = published("imagenet_a", tmp_path / "elsewhere", server, monkeypatch)
    prepare(record, tmp_path, keep=True)
    assert (tmp_path / "imagenet-adversarial" / "imagenet-a.tar").is_file()
