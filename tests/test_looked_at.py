"""A file that passed a first look is not looked at again until it changes."""

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from daptune import isolated, looked_at
from daptune.isolated import try_first

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")


def notes(path: str) -> None:
    """Leaves a mark at each look."""
    with open(f"{path}.looks", "a") as file:
        file.write("x")
    if Path(path).read_text() == "bad":
        raise ValueError("bad")


def looks(path: Path, memory: int = 300_000_000) -> int:
    """How often a file has been looked at, with one more try."""
    try_first(f"{__name__}:notes", str(path), memory=memory, seconds=5)
    return len(Path(f"{path}.looks").read_text())


def test_a_second_look_is_left_out_until_the_file_changes(tmp_path: Path) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    for path in (file, other):
        path.write_text("good")
    assert [looks(file), looks(file), looks(other), looks(file)] == [1, 1, 1, 1]
    assert looks(file, memory=310_000_000) == 2  # another look
    times = file.stat()
    file.write_text("same")  # as long
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # what a program can set back
    assert [looks(file), looks(file)] == [3, 3]
    other.rename(tmp_path / "kept")
    file.rename(other)
    assert looks(other) == 2  # another file under a name that passed


def test_what_does_not_pass_is_looked_at_each_time(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("bad")
    for count in (1, 2):
        with pytest.raises(ValueError, match="bad"):
            looks(file)
        assert len((tmp_path / "file.looks").read_text()) == count


def test_another_version_of_a_library_looks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, packages = tmp_path / "file", tmp_path / "site-packages"
    file.write_text("good")
    packages.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(packages))
    assert [looks(file), looks(file)] == [1, 1]
    (packages / "library-2.dist-info").mkdir()
    os.utime(packages, ns=(1, 1))  # whatever the clock's resolution
    assert looks(file) == 2


def test_the_list_is_short_and_its_loss_costs_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, place = tmp_path / "file", looked_at._list()
    file.write_text("good")
    for number in range(3):
        looked_at.note_passed(f"{number}")
    monkeypatch.setattr(looked_at, "MOST", 2)
    looked_at.note_passed("3")
    assert place.read_text().split() == ["2", "3"]
    place.write_bytes(b"\xff\x00 no list")
    assert [looks(file), looks(file)] == [1, 1]
    place.unlink()
    place.mkdir()  # it can be neither read nor written
    assert [looks(file), looks(file)] == [2, 3]


def test_a_file_that_is_not_there_has_no_line(tmp_path: Path) -> None:
    assert looked_at.line_of("look", path=str(tmp_path / "none")) is None
    with pytest.raises(ValueError, match="No such file"):
        isolated.try_first(f"{__name__}:notes", str(tmp_path / "none" / "file"), memory=300_000_000, seconds=5)


def test_a_user_without_a_home_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)  # no user's
    (tmp_path / "file").write_text("good")
    assert [looks(tmp_path / "file"), looks(tmp_path / "file")] == [1, 2]
    assert not (tmp_path / "~").exists()
