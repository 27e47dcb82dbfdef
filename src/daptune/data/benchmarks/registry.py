"""The benchmark data sets as records, from `benchmarks.toml` beside this file: folders, counts, where to get them."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daptune.errors import DataError, suggest
from daptune.names import plain_key


@dataclass(frozen=True)
class Download:
    """One file to fetch.

    address: http(s); `drive:ID` for a small file of Google Drive; `hub:ORG/REPO/FILE[@REVISION]` for one of a data set
        of the Hugging Face hub.
    file: its name on this machine, below the data set's folder.
    unpack: (path in the archive, path below the data set's folder) of what is wanted of it; none: the file itself.
    nested: an archive within the archive, which is unpacked in its place.
    """

    address: str
    file: str
    md5: str = ""
    unpack: tuple[tuple[str, str], ...] = ()
    nested: str = ""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One data set.

    name, title: ours, and that of the official code.
    folder, images: below the data root, and below that.
    counts: published images in train, val and test; 0 where there are none.
    places: the folders that hold images, where they are others than `images` itself.
    layout: the reader in `layouts.READERS`; ignored, renamed: class folders that it leaves out or names otherwise.
    notes: files that the layout reads where the split file is not there.
    signs: paths that all stand in the makers' own archive, by which a folder is known to be this data set.
    manual: what to do by hand where nothing can be fetched.
    """

    name: str
    title: str
    folder: str
    images: str
    classes: int
    counts: tuple[int, int, int]
    layout: str
    page: str
    notes: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()
    manual: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)

    @property
    def split_file(self) -> str:
        """The name of the authors' split, one of the downloads; empty where there is none."""
        return next((download.file for download in self.downloads if download.file.startswith("split_zhou_")), "")


def _frozen(value: Any) -> Any:
    """TOML's lists as tuples, at any depth."""
    if isinstance(value, dict):
        return {key: _frozen(inner) for key, inner in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _read() -> dict[str, Benchmark]:
    content = _frozen(tomllib.loads(Path(__file__).with_name("benchmarks.toml").read_text("utf-8")))
    records = {}
    for name, facts in content.items():
        downloads = tuple(Download(**download) for download in facts.pop("downloads", ()))
        records[name] = Benchmark(name=name, downloads=downloads, **facts)
    return records


BENCHMARKS = _read()
"""Every data set by its name, in the order of the paper's figures, the four targets last."""


def canonical(name: str) -> str:
    """The canonical name of a benchmark data set, from any usual spelling; other names are returned unchanged."""
    try:
        return find(name).name
    except DataError:
        return name


def find(name: str) -> Benchmark:
    """The record of a name in any usual spelling (`oxford_pets`, `OxfordPets`, `imagenet-a`, `flowers102`)."""
    for record in BENCHMARKS.values():
        if plain_key(name) in map(plain_key, (record.name, record.title, record.folder, *record.aliases)):
            return record
    raise DataError(f"no benchmark data set is called {name!r}.{suggest(name, BENCHMARKS)}")
