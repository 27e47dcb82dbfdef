"""Archives, unpacked without trusting them: files and folders alone, inside the folder, and no more than is plausible.

Tar members go through tarfile's filter "data" (PEP 706), which refuses paths that lead outside and devices; links are
refused besides. What is unpacked stands in its place only when it is complete.
"""

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, cast

from daptune import files
from daptune.errors import DataError, foreign
from daptune.foreign import TooLarge, megabytes, open_zip
from daptune.regular import open_regular

MOST_FILES = 3_000_000
GROWTH = 20
"""Pictures hardly shrink in an archive: one that unpacks to so many times its size, and 256 MiB, is a bomb."""
_FREE = 256 << 20
LARGEST_HEADER, LARGEST_HEADERS = 1 << 20, 64 << 20
"""Bytes of an extended header of a tar, and of all of them."""
_BLOCK = 16 * 1024  # bytes that tarfile copies at once


def unpack(archive: Path, folder: Path, wanted: Sequence[tuple[str, str]], nested: str = "") -> None:
    """Put what is `wanted` of an archive, (path inside, path below folder), into folder; what is there is kept.

    A wanted folder goes to "." file by file. nested: an archive inside, which is unpacked in its place. Raises
    DataError for a damaged archive, one that lacks a wanted path, and one with a member that may not be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with files.scratch(folder / archive.name) as place:
        extract(archive, place)
        if nested:
            inner = place / nested
            if not inner.is_file():
                raise DataError(f"{archive}: expected {nested} inside; fetch it again.")
            place = place / ".inner"
            extract(inner, place)
        for inside, target in wanted:
            source = place / inside
            if not source.exists():
                raise DataError(f"{archive}: expected {inside} inside, found {_first(place)}; fetch it again.")
            if target == ".":
                for child in sorted(source.iterdir()):
                    _move(child, folder / child.name)
            else:
                _move(source, folder / target)


def extract(archive: Path, place: Path) -> None:
    """The whole of a .zip or .tar (.gz, .bz2, .xz) into an empty folder; DataError as `unpack`."""
    place.mkdir(exist_ok=True)
    limit = max(GROWTH * archive.stat().st_size, _FREE)
    advice = "remove it and fetch it again."
    with foreign(lambda why: DataError(f"{archive} is damaged, no archive, or cannot be unpacked ({why}); {advice}")):
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, place, limit)
        else:
            _extract_tar(archive, place, limit)


def _extract_tar(archive: Path, place: Path, limit: int) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise DataError("unpacking needs Python 3.11.4 or newer, which looks at what an archive writes; update it.")
    size = 0
    with _opened(archive) as packed:
        stream = _Bounded(packed, limit + _FREE)
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as file:
            for number, member in enumerate(file):
                size += member.size
                if number >= MOST_FILES:
                    raise _refused(archive, member.name, "it holds too many files")
                if not (member.isfile() or member.isdir()):
                    raise _refused(archive, member.name, "it is a link or a device")
                if size > limit:
                    raise _refused(archive, member.name, "it unpacks to far more than its size")
                try:
                    file.extract(member, place, filter="data")
                except tarfile.FilterError as error:
                    raise _refused(archive, member.name, str(error)) from error
                file.members.clear()  # type: ignore[attr-defined]  # tarfile keeps a kilobyte for each


def _opened(archive: Path) -> IO[bytes]:
    """The bytes of a tar, decompressed by what its first bytes say."""
    with open_regular(archive) as file:
        head = file.read(6)
    if head[:2] == b"\x1f\x8b":
        return cast(IO[bytes], gzip.open(archive))
    if head[:3] == b"BZh":
        return cast(IO[bytes], bz2.open(archive))
    if head[:6] == b"\xfd7zXZ\0":
        return cast(IO[bytes], lzma.open(archive))
    return open_regular(archive)


class _Bounded:
    """A stream that gives no more than `most` bytes, and none of its parts whole: a header may claim to have gigabytes.

    tarfile copies members in small parts; what it reads in one is the header of a member, or an extended one.
    """

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._most, self._headers = stream, most, LARGEST_HEADERS

    def read(self, size: int) -> bytes:
        """At most `size` bytes from here. Raises ValueError beyond the limits."""
        if size > _BLOCK:
            self._headers -= size
        if size > LARGEST_HEADER or self._headers < 0:
            raise ValueError(f"it has a header of {megabytes(size)}")
        self._within(self._stream.tell() + size)
        return self._stream.read(size)

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, place: int) -> int:
        """Raises ValueError for a place beyond the limit, which would be decompressed."""
        self._within(place)
        return self._stream.seek(place)

    def _within(self, place: int) -> None:
        if place > self._most:
            raise ValueError("it unpacks to far more than its size")


def _extract_zip(archive: Path, place: Path, limit: int) -> None:
    with open_regular(archive) as packed:
        try:
            file = open_zip(packed, MOST_FILES)
        except TooLarge as error:
            raise _refused(archive, archive.name, str(error)) from error
        members = file.infolist()
        if len(members) > MOST_FILES or sum(member.file_size for member in members) > limit:
            raise _refused(archive, members[0].filename, "it unpacks to far more than its size")
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, member.filename, "it is a link or a device")
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise _refused(archive, member.filename, "it leads out of the folder")
            file.extract(member, place)  # reads no more than file_size, and checks the CRC


def _refused(archive: Path, member: str, why: str) -> DataError:
    return DataError(f"{archive} was not unpacked, for {member!r} may not be: {why}. Fetch it from its own page.")


def _move(source: Path, target: Path) -> None:
    """Into place; folders that are there already take what they lack, files that are there stay."""
    if source.is_dir() and target.is_dir():
        for child in sorted(source.iterdir()):
            _move(child, target / child.name)
    elif not os.path.lexists(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)


def _first(place: Path) -> str:
    return ", ".join(sorted(child.name for child in place.iterdir())[:3]) or "nothing"
