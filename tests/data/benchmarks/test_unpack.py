import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from daptune.data.benchmarks import unpack as module
from daptune.data.benchmarks.unpack import unpack
from daptune.errors import DataError


def tar(path: Path, files: dict[str, bytes], *extra: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FILES = {"top/images/a.jpg": b"1", "top/images/b/c.jpg": b"2", "top/notes.txt": b"3", "README": b"4"}


@pytest.mark.parametrize("make", [tar, zipped])
def test_what_is_wanted_goes_where_it_belongs(make: Callable[..., Path], tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", FILES)
    unpack(archive, tmp_path / "out", [("top/images", "pictures"), ("README", "README")])
    assert content(tmp_path / "out") == {"pictures/a.jpg": b"1", "pictures/b/c.jpg": b"2", "README": b"4"}


def test_a_folder_goes_into_the_data_sets_own_and_nothing_is_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "images").mkdir(parents=True)
    (out / "images" / "a.jpg").write_bytes(b"mine")
    unpack(tar(tmp_path / "a.tar.gz", FILES), out, [("top", ".")])
    assert content(out) == {"images/a.jpg": b"mine", "images/b/c.jpg": b"2", "notes.txt": b"3"}


def test_an_archive_within_an_archive(tmp_path: Path) -> None:
    inner = tar(tmp_path / "inner.tar.gz", {"classes/cat/1.jpg": b"1"}).read_bytes()
    archive = zipped(tmp_path / "outer.zip", {"set/inner.tar.gz": inner, "set/other.tar": b"x"})
    unpack(archive, tmp_path / "out", [("classes", "classes")], nested="set/inner.tar.gz")
    assert content(tmp_path / "out") == {"classes/cat/1.jpg": b"1"}
    with pytest.raises(DataError, match=r"expected set/none\.tar inside"):
        unpack(archive, tmp_path / "other", [("classes", "classes")], nested="set/none.tar")


def member(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize(
    "evil",
    [
        member("top/link", tarfile.SYMTYPE, "/etc"),
        member("top/inside", tarfile.SYMTYPE, "images"),
        member("top/hard", tarfile.LNKTYPE, "README"),
        member("top/device", tarfile.CHRTYPE),
        member("top/pipe", tarfile.FIFOTYPE),
        member("../escaped", tarfile.DIRTYPE),
        member("top/../../escaped", tarfile.REGTYPE),
    ],
    ids=["link", "link inside", "hard link", "device", "pipe", "folder outside", "file outside"],
)
def test_an_evil_tar_is_not_unpacked(evil: tarfile.TarInfo, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="was not unpacked"):
        unpack(tar(tmp_path / "evil.tar", FILES, evil, mode="w"), out, [("top", "top")])
    assert not any(out.iterdir())
    assert not (tmp_path / "escaped").exists()


def test_an_absolute_path_of_a_tar_stays_inside(tmp_path: Path) -> None:
    """The filter takes the first slash off, as tar programs do."""
    outside = tmp_path / "outside.txt"
    archive = tar(tmp_path / "a.tar", {str(outside): b"x", "top/a": b"y"}, mode="w")
    unpack(archive, tmp_path / "out", [("top", "top")])
    assert not outside.exists()
    assert content(tmp_path / "out") == {"top/a": b"y"}


@pytest.mark.parametrize("name", ["../escaped.txt", "top/../../escaped.txt", "/escaped.txt", "..\\escaped.txt"])
def test_an_evil_zip_is_not_unpacked(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="leads out of the folder"):
        unpack(zipped(tmp_path / "evil.zip", FILES | {name: b"x"}), out, [("top", "top")])
    assert not any(out.iterdir())
    assert not list(tmp_path.rglob("escaped.txt"))


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "evil.zip", FILES)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("top/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="it is a link or a device"):
        unpack(path, tmp_path / "out", [("top", "top")])


@pytest.mark.parametrize("make", [tar, zipped])
def test_a_bomb_is_refused(make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FREE", 1 << 16)
    archive = make(tmp_path / "bomb", {"top/zeros": bytes(1 << 20)})
    with pytest.raises(DataError, match="far more than its size"):
        unpack(archive, tmp_path / "out", [("top", "top")])
    assert not any((tmp_path / "out").iterdir())


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 3)
    for make in (tar, zipped):
        with pytest.raises(DataError, match="was not unpacked"):
            unpack(make(tmp_path / make.__name__, FILES), tmp_path / "out", [("top", "top")])


@pytest.mark.parametrize("cut", [0, 50, 150])
def test_a_damaged_archive_is_one_line_and_leaves_nothing(cut: int, tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar.gz", FILES).read_bytes()
    damaged = tmp_path / "damaged.tar.gz"
    damaged.write_bytes(whole[:cut])
    with pytest.raises(DataError, match=r"damaged|expected top inside"):
        unpack(damaged, tmp_path / "out", [("top", "top")])
    assert not any((tmp_path / "out").iterdir())


def test_a_wanted_part_that_is_not_inside_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected pictures inside, found README, top"):
        unpack(tar(tmp_path / "a.tar.gz", FILES), tmp_path / "out", [("pictures", "images")])
