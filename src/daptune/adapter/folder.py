"""The adapters in a folder: each with its record, or with what is wrong with it."""

from dataclasses import dataclass
from pathlib import Path

from daptune import files
from daptune.adapter.record import JSON_FILE, TENSOR_FILE, AdapterRecord, read_record
from daptune.errors import DaptuneError


@dataclass(frozen=True)
class Listed:
    """An adapter of a folder: its record, or None and in `fault` a line that says why it cannot be used."""

    path: Path
    record: AdapterRecord | None
    fault: str = ""

    @property
    def name(self) -> str:
        return self.path.name


def adapters_in(folder: Path) -> list[Listed]:
    """The adapters below a folder by name; a broken one is listed as such and harms no other. Hidden folders are not.

    What a process that was killed left of saving one is finished or cleared first. Raises OSError if the folder cannot
    be read.
    """
    return [_listed(path) for path in adapter_folders(folder)]


def adapter_folders(folder: Path) -> list[Path]:
    """The folders of `adapters_in`, of which nothing has been read."""
    files.clear(folder, files=False)
    places = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in places if any((path / file).is_file() for file in (JSON_FILE, TENSOR_FILE))]


def _listed(path: Path) -> Listed:
    try:
        return Listed(path, read_record(path))
    except (DaptuneError, OSError) as error:
        return Listed(path, None, " ".join(str(error).split()))
