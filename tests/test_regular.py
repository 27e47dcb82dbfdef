"""Files that are not regular are refused at once, wherever a file of the user's is read; nothing waits for them."""

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from daptune.cli import run
from daptune.regular import check_regular, open_regular, read_regular

pytestmark = pytest.mark.skipif(os.name != "posix", reason="FIFOs are of POSIX")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def sock(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(path))  # an address has 107 bytes at most


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def linked(path: Path) -> None:
    os.mkfifo(path.with_name("real"))
    path.symlink_to("real")


KINDS: list[tuple[Callable[[Path], None], str]] = [
    (fifo, "a FIFO"), (sock, "a socket"), (device, "a device"), (linked, "a FIFO"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("make", "word"), KINDS)
def test_they_are_refused_by_name(tmp_path: Path, make: Callable[[Path], None], word: str) -> None:
    path = tmp_path / "x.png"
    make(path)
    for reader in (check_regular, open_regular, read_regular):
        with pytest.raises(OSError, match=f"it is {word}, not a regular file"):
            reader(path)


def test_regular_files_are_read_through_links(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("real")
    assert read_regular(tmp_path / "link") == b"abc"
    with open_regular(tmp_path / "link") as file:
        assert stat.S_ISREG(os.fstat(file.fileno()).st_mode) and file.read(2) == b"ab" and file.seek(0) == 0
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")


@pytest.mark.parametrize(("make", "word"), KINDS[:3])
def test_predict_gives_them_a_row_and_goes_on(
    adapter: Path, pictures: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], word: str
) -> None:
    folder = pictures / "red"
    make(folder / "a.png")
    make(folder / "list.txt")
    assert run(["predict", str(adapter), str(folder)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 11 and [f"it is {word}, not a regular file" in row for row in rows].count(True) == 1
    assert run(["predict", str(adapter), str(folder / "list.txt")]) == 2
    error = capsys.readouterr().err
    assert f"it is {word}, not a regular file" in error and error.count("\n") == 1


def test_a_folder_with_some_is_checked_without_waiting(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fifo(pictures / "red" / "x.png")
    fifo(pictures / "red" / "y")
    device(pictures / "red" / "z.jpg")
    run(["data", "check", str(pictures)])
    printed = capsys.readouterr()
    text = " ".join((printed.out + printed.err).split())
    assert "2 of 32 images cannot be read" in text and "/y: " not in text  # no picture by its name
    assert "x.png: it is a FIFO" in text and "z.jpg: it is a device" in text


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "{}.csv"],
        ["fit", "{}.json"],
        ["fit", "{}.pkl"],
        ["fit", "{}.parquet"],
        ["fit", "pictures", "--names", "{}.csv"],
        ["fit", "pictures", "--names", "{}.json"],
        ["fit", "pictures", "--class-weight", "{}.json"],
        ["fit", "pictures", "--backbone", "{}.pt"],
        ["methods", "--backbone", "{}.safetensors"],
        ["bench", "{}.toml", "--list"],
        ["predict", "adapter", "{}.csv"],
        ["predict", "{}.onnx", "pictures"],
    ],
)
def test_files_of_every_kind_are_one_line(
    adapter: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    name = next(word for word in words if "{}" in word)
    fifo(tmp_path / name.format("x"))
    assert run([word.format("x") for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("daptune: error: ") and error.count("\n") == 1


@pytest.mark.parametrize("part", ["adapter.json", "adapter.safetensors"])
def test_the_files_of_an_adapter(
    adapter: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    place = shutil.copytree(adapter, tmp_path / "adapter")
    (place / part).unlink()
    fifo(place / part)
    for verb in (["predict", str(place), str(pictures)], ["show", str(place)]):
        assert run(verb) == 2
        error = capsys.readouterr().err
        assert part in error and error.count("\n") == 1
