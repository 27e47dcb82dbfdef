"""A folder of class folders, alone or below train/, val/ and test/."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from daptune.data.formats import FORMAT_WORDS, is_image_file
from daptune.data.labels import index_labels
from daptune.data.table import SPLITS, ImageTable, Splits, split_kind
from daptune.errors import DataError
from daptune.names import check_class_names, sort_key

LAYOUT = "one sub-folder of images a class (cats/1.jpg, dogs/2.jpg), alone or below train/, val/ and test/"
_CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}  # what file managers leave behind


def read_folder(folder: Path, label_names: Sequence[str] | None = None) -> Splits:
    """Read `folder/class/**/image` or `folder/{train,val,test}/class/**/image`; some of the three may be missing.

    The first of them that is there decides the classes. A class folder is searched to any depth; hidden files and those
    of file managers are skipped, other files that are no images come back as `ignored`. Links are followed, each folder
    once.
    """
    ignored: list[Path] = []
    splits = _split_folders(folder)
    if not splits:
        return Splits(_read_classes(folder, label_names, ignored), ignored=tuple(ignored))
    tables: dict[str, ImageTable] = {}
    for kind in (kind for kind in SPLITS if kind in splits):
        tables[kind] = _read_classes(splits[kind], label_names, ignored)
        label_names = tables[kind].class_names
    return Splits.of(tables, ignored)


def image_files(folder: Path) -> Iterator[Path]:
    """Every image file below a folder, sorted, hidden ones left out; of the names, those of one folder are held."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files.sort()
        for name in files:
            if not name.startswith(".") and is_image_file(path := Path(place, name)):
                yield path


def _split_folders(folder: Path) -> dict[str, Path]:
    """The folders of the splits, or {} where the sub-folders are classes (one may well be called 'train')."""
    children = _entries(folder)[0]
    splits: dict[str, Path] = {}
    for child in children:
        kind = split_kind(child.name)
        if kind is None or not _entries(child)[0]:
            continue
        if kind in splits:
            raise DataError(f"{folder}: {splits[kind].name}/ and {child.name}/ are both the {kind} split; keep one.")
        splits[kind] = child
    others = [child for child in children if child not in splits.values()]
    if not splits or ("train" not in splits and others):
        return {}
    if "train" not in splits:
        return splits
    alone = len(splits) == 1
    stray = next((child for child in others if alone and any(map(is_image_file, _walk(child)))), None)
    if stray is not None:
        raise DataError(
            f"{folder}: train/ has sub-folders like a split, but {stray.name}/ stands beside it like a class;"
            f" give {splits['train']} itself, or put the classes below train/."
        )
    return splits


def _read_classes(folder: Path, label_names: Sequence[str] | None, ignored: list[Path]) -> ImageTable:
    """Without label_names every sub-folder is a class and must hold images; of known classes some may be missing."""
    classes, loose = _entries(folder)
    ignored.extend(loose)
    if not classes:
        found = "images but no sub-folders" if any(map(is_image_file, loose)) else "nothing to read"
        raise DataError(f"{folder}: expected {LAYOUT}; found {found}.")
    places: dict[str, str] = {}
    for path in classes:
        if (twin := places.setdefault(os.path.realpath(path), path.name)) != path.name:
            raise DataError(f"{folder}: {twin}/ and {path.name}/ are links to one folder; remove one.")
    images: list[Path] = []
    labels: list[str] = []
    empty: list[str] = []
    barred = {*places, os.path.realpath(folder), *map(str, Path(os.path.realpath(folder)).parents)}
    for path in classes:
        before = len(images)
        for file in _walk(path, barred - {os.path.realpath(path)}):
            (images if is_image_file(file) else ignored).append(file)
        labels.extend([path.name] * (len(images) - before))
        if len(images) == before:
            empty.append(path.name)
    if not images:
        raise DataError(f"{folder}: expected {LAYOUT}; found no {FORMAT_WORDS} files in its sub-folders.")
    if empty and label_names is None:
        raise DataError(f"{folder}: no {FORMAT_WORDS} files in {', '.join(empty)}; add some or remove it.")
    if label_names is None and len(classes) == 1:
        hint = f" Did you mean {classes[0]}?" if len(_entries(classes[0])[0]) > 1 else ""
        raise DataError(f"{folder}: expected two class folders or more, found only {classes[0].name}/.{hint}")
    names = check_class_names([path.name for path in classes], fewest=2) if label_names is None else label_names
    indices, class_names = index_labels(labels, names, where=str(folder))
    return ImageTable(tuple(images), indices, class_names, folder)


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Visible sub-folders and files, each sorted; a broken link counts as the file that it should be."""
    folders: list[Path] = []
    files: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in _CLUTTER:
                    continue
                if _leads_to_folder(entry):
                    folders.append(folder / entry.name)
                elif entry.is_symlink() or entry.is_file():
                    files.append(folder / entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}); check its permissions.") from None
    folders.sort(key=lambda path: sort_key(path.name))
    files.sort(key=lambda path: sort_key(path.name))
    return folders, files


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _walk(folder: Path, barred: Iterable[str] = ()) -> Iterator[Path]:
    """All visible files below, in order; no folder is entered twice, nor one of `barred`, through links."""
    seen = set(barred)
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        if (place := os.path.realpath(current)) in seen:
            continue
        seen.add(place)
        folders, files = _entries(current)
        yield from files
        waiting.extend(reversed(folders))
