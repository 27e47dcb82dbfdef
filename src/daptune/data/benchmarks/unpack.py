"""Archives, unpacked without trusting them: files and folders alone, inside the folder, and no more than is plausible.

Tar members go through tarfile's filter "data" (PEP 706), which refuses paths that lead outside and devices; links are
refused besides. What is unpacked stands in its place only when it is complete.
"""

import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from daptune import files
from daptune.errors import DataError

MOST_FILES = 3_000_000
GROWTH = 20
"""Pictures hardly shrink in an archive: one that unpacks to so many times its size, and 256 MiB, is a bomb."""
_FREE = 256 << 20


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
    try:
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, place, limit)
        else:
            _extract_tar(archive, place, limit)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{archive} is damaged or no archive ({error}); remove it and fetch it again.") from error


def _extract_tar(archive: Path, place: Path, limit: int) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise DataError("unpacking needs Python 3.11.4 or newer, which looks at what an archive writes; update it.")
    size = 0
    with tarfile.open(archive) as file:
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


def _extract_zip(archive: Path, place: Path, limit: int) -> None:
    with zipfile.ZipFile(archive) as file:
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
