"""A folder of class folders, alone or below train/, val/ and test/."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from daptune.data.benchmarks.archives import find_archive
from daptune.data.check import first_few
from daptune.data.formats import FORMAT_WORDS, is_film_file, is_image_file, is_picture_file, left_out
from daptune.data.ids import readable_names
from daptune.data.labels import index_labels, leading, refuse_untrained
from daptune.data.levels import check_levels
from daptune.data.name_lists import LARGEST
from daptune.data.table import SPLITS, ImageTable, Splits, split_kind
from daptune.data.zhou import find_split_file
from daptune.errors import DataError, foreign
from daptune.files import told
from daptune.foreign import read_bytes
from daptune.names import check_class_names, name_key, sort_key

LAYOUT = "one sub-folder of images a class (cats/1.jpg, dogs/2.jpg), alone or below train/, val/ and test/"
_NO_CLASS = {"images", "image", "imgs", "img", "pictures", "unlabeled", "unlabelled", "unknown"}
_log = logging.getLogger("daptune")
_CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}  # what file managers leave behind


def read_folder(folder: Path, label_names: Sequence[str] | None = None, own_ids: bool = False) -> Splits:
    """Read `folder/class/**/image` or `folder/{train,val,test}/class/**/image`; some of the three may be missing.

    The first of them that is there decides the classes. A class folder is searched to any depth, but a folder of data
    sets is refused (`levels`); folders called by ids take their names from a list beside them (`ids`), unless
    `own_ids`. Tiny-ImageNet's
    val/val_annotations.txt is read, and a test/ without labels is left out with a line. Hidden files and those
    of file managers are skipped, other files that are no images come back as `ignored`. Links are followed, each folder
    once.
    """
    ignored: list[Path] = []
    splits = _split_folders(folder)
    if not splits:
        naming = _naming(folder, label_names, own_ids)
        return Splits(_read_classes(folder, label_names, ignored, naming), ignored=tuple(ignored))
    _say_unlabelled(folder, splits)
    tables: dict[str, ImageTable] = {}
    naming, given = _naming(splits[leading(splits)], label_names, own_ids), label_names is not None
    for kind in (kind for kind in SPLITS if kind in splits):
        if tables and (annotated := _read_annotations(splits[kind], naming, label_names or ())):
            tables[kind] = annotated
        elif tables and _is_unlabelled(splits[kind], naming):
            _log.warning("%s: its images have no labels and are left out", splits[kind])
        else:
            if tables and not given:
                own = [naming.get(path.name, path.name) for path in _entries(splits[kind])[0]]
                lead = leading(splits)
                refuse_untrained(own, tables[lead].class_names, str(splits[kind]), lead)
            tables[kind] = _read_classes(splits[kind], label_names, ignored, naming)
            label_names = tables[kind].class_names
    return Splits.of(tables, ignored)


def image_files(folder: Path, *, unread: bool = False, films: bool = False) -> Iterator[Path]:
    """Every image file below a folder, sorted, hidden ones left out; of the names, those of one folder are held.

    unread: those of formats that are not read here too, such as HEIC without its extra. films: films too.
    """
    picture = is_picture_file if unread else is_image_file

    def wanted(path: Path) -> bool:
        return picture(path) or (films and is_film_file(path))

    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files.sort()
        for name in files:
            if not name.startswith(".") and wanted(path := Path(place, name)):
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


def _naming(folder: Path, label_names: Sequence[str] | None, own_ids: bool) -> dict[str, str]:
    """Class folder -> class name: its own, or that of a list beside it where all are ids and not known as they are."""
    names = [path.name for path in _entries(folder)[0]]
    own = {name: name for name in names}
    if own_ids:
        return own
    if label_names is None:
        return readable_names(folder, names)
    known = {name_key(name) for name in label_names}
    if all(name_key(name) in known for name in names):
        return own
    named = readable_names(folder, names)
    return named if all(name_key(name) in known for name in named.values()) else own


def _say_unlabelled(folder: Path, splits: dict[str, Path]) -> None:
    """A line for a test/ (or val/) beside the splits with images directly in it."""
    for child in _entries(folder)[0]:
        if child not in splits.values() and split_kind(child.name) and any(map(is_image_file, _entries(child)[1])):
            _log.warning("%s: its images have no labels and are left out", child)


def _is_unlabelled(folder: Path, naming: dict[str, str]) -> bool:
    """Whether all images lie in one folder that is no class: test/images/."""
    names = [path.name for path in _entries(folder)[0]]
    return len(names) == 1 and names[0] not in naming and names[0].lower() in _NO_CLASS


def _read_annotations(folder: Path, naming: dict[str, str], class_names: Sequence[str]) -> ImageTable | None:
    """Tiny-ImageNet's val/: lines of file, class and a box in val_annotations.txt, the files in images/."""
    lists = sorted(folder.glob("*_annotations.txt"))
    if len(lists) != 1:
        return None
    with foreign(lambda why: DataError(f"{lists[0]} cannot be read ({why}); fetch it again, or move it away.")):
        lines = read_bytes(lists[0], LARGEST).decode("utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line.strip()]
    if any(len(row) < 2 for row in rows):
        raise DataError(f"{lists[0]}: expected a file and its class in each line, with a tab between.")
    place = folder / "images" if (folder / "images").is_dir() else folder
    indices, names = index_labels([naming.get(row[1], row[1]) for row in rows], class_names, where=str(lists[0]))
    return ImageTable(tuple(place / row[0] for row in rows), indices, names, folder)


def _read_classes(
    folder: Path, label_names: Sequence[str] | None, ignored: list[Path], naming: dict[str, str]
) -> ImageTable:
    """Without label_names every sub-folder is a class and must hold images; of known classes some may be missing."""
    classes, loose = _entries(folder)
    ignored.extend(loose)
    if not classes:
        found = "images but no sub-folders" if any(map(is_image_file, loose)) else "nothing to read"
        raise DataError(f"{folder}: expected {LAYOUT}; found {found}.{_above(folder)}")
    places: dict[str, str] = {}
    for path in classes:
        if (twin := places.setdefault(os.path.realpath(path), path.name)) != path.name:
            raise DataError(f"{folder}: {twin}/ and {path.name}/ are links to one folder; remove one.")
    images: list[Path] = []
    labels: list[str] = []
    empty: list[str] = []
    deep: dict[str, set[str]] = {}
    barred = {*places, os.path.realpath(folder), *map(str, Path(os.path.realpath(folder)).parents)}
    for path in classes:
        files = list(_walk(path, barred - {os.path.realpath(path)}))
        own = [file for file in files if is_image_file(file)]
        if len(own) < len(files):
            kept = set(own)
            ignored.extend(file for file in files if file not in kept)
        images.extend(own)
        labels.extend([naming.get(path.name, path.name)] * len(own))
        if not own:
            empty.append(path.name)
        elif path not in (folders := {file.parent for file in own}):
            deep[path.name] = {place.relative_to(path).parts[0] for place in folders}
    if not images:
        unread = "".join(f" {line}." for line in left_out(ignored))
        raise DataError(f"{folder}: expected {LAYOUT}; found no {FORMAT_WORDS} files in its sub-folders.{unread}")
    check_levels(folder, deep, len(classes), _is_data_set)
    if empty and label_names is None:
        unread = "".join(f" {line}." for line in left_out(ignored))
        raise DataError(f"{folder}: no {FORMAT_WORDS} files in {first_few(empty)}; add some or remove it.{unread}")
    if label_names is None and len(classes) == 1:
        hint = f" Did you mean {classes[0]}?" if len(_entries(classes[0])[0]) > 1 else ""
        raise DataError(f"{folder}: expected two class folders or more, found only {classes[0].name}/.{hint}")
    folder_names = [naming.get(path.name, path.name) for path in classes]
    names = check_class_names(folder_names, fewest=2) if label_names is None else label_names
    indices, class_names = index_labels(labels, names, where=str(folder))
    return ImageTable(tuple(images), indices, class_names, folder)


def _is_data_set(folder: Path) -> bool:
    """Whether a folder would be read as a data set with splits, or as a published one."""
    try:
        return bool(_split_folders(folder) or find_split_file(folder) or find_archive(folder))
    except DataError:
        return True


def _above(folder: Path) -> str:
    """A hint where the images of a published data set were given in place of its folder."""
    above = folder.absolute().parent
    return f" Did you mean {above}?" if next(above.glob("split_zhou_*.json"), None) or find_archive(above) else ""


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Visible sub-folders and files, each sorted; a broken link counts as the file that it should be."""
    folders: list[Path] = []
    files: list[Path] = []
    refused = told(lambda why: DataError(f"{folder} cannot be read ({why}); check its permissions."))
    with refused, os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _CLUTTER:
                continue
            if _leads_to_folder(entry):
                folders.append(folder / entry.name)
            else:  # also what is no regular file: it is told when it is read
                files.append(folder / entry.name)
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
