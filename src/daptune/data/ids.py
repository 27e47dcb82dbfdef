"""Class folders called by WordNet ids or numbers -> the names that a list beside them gives, in answers and prompts.

words.txt, LOC_synset_mapping.txt          an id, a tab or a blank, its synonyms
classes.txt, class_names.txt, classnames.txt   an id and a name a line, or a name a line in the order of the numbers
cat_to_name.json, imagenet_class_index.json    {"1": "pink primrose"}, {"0": ["n01440764", "tench"]}

ImageNet's ids are known without a list.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from daptune.data.benchmarks.layouts import class_names
from daptune.data.name_lists import LARGEST, WNID, json_names
from daptune.errors import DataError, foreign
from daptune.foreign import read_bytes

LISTS = (
    "words.txt", "LOC_synset_mapping.txt", "cat_to_name.json", "class_names.txt", "classes.txt", "classnames.txt",
    "imagenet_class_index.json",
)  # fmt: skip
_log = logging.getLogger("daptune")


def readable_names(folder: Path, ids: Sequence[str]) -> dict[str, str]:
    """Folder name -> class name where all are ids and a list in `folder` or above it has them; else as they are.

    One line in the log says which list. Without one, `daptune.names.unreadable` finds the ids where prompts are made.
    """
    numbers = all(name.isdecimal() for name in ids)
    if not ids or not (numbers or all(WNID.fullmatch(name) for name in ids)):
        return {name: name for name in ids}
    for place in (folder, folder.parent):
        for path in map(place.joinpath, LISTS):
            if path.is_file() and (names := _from_list(path, ids)):
                _say(folder, path.name, names)
                return names
    known = {} if numbers else class_names(Path())
    if known and all(name in known for name in ids):
        names = _distinct({name: [known[name]] for name in ids})
        _say(folder, "ImageNet's list", names)
        return names
    return {name: name for name in ids}


def _say(folder: Path, source: str, names: Mapping[str, str]) -> None:
    first = next(iter(names))
    _log.warning("%s: classes are named by %s: %s is %r, and so on", folder, source, first, names[first])


def _from_list(path: Path, ids: Sequence[str]) -> dict[str, str]:
    """Id -> name for all of `ids`, or nothing where the list lacks one."""
    try:
        with foreign(DataError):
            found: Mapping[str, Sequence[str]] = json_names(path) if path.suffix == ".json" else _text(path, ids)
    except DataError:  # a list that cannot be read names nothing
        return {}
    return _distinct({name: found[name] for name in ids}) if all(found.get(name) for name in ids) else {}


def _text(path: Path, ids: Sequence[str]) -> dict[str, list[str]]:
    """Id -> its names. Lines without ids count from 0 where a folder is called so, else from 1."""
    lines = [line.strip() for line in read_bytes(path, LARGEST).decode("utf-8-sig").splitlines() if line.strip()]
    parts = [re.split(r"[\t, ]+", line, maxsplit=1) for line in lines]
    if all(len(part) == 2 and (WNID.fullmatch(part[0]) or part[0].isdecimal()) for part in parts):
        by_id = any(WNID.fullmatch(key) for key, _ in parts)
        return {key: [word.strip() for word in rest.split(",")] if by_id else [rest] for key, rest in parts}
    if len(lines) != len(ids) or not all(name.isdecimal() for name in ids):
        return {}
    first = 0 if any(int(name) == 0 for name in ids) else 1
    return {name: [lines[int(name) - first]] for name in ids if int(name) - first < len(lines)}


def _distinct(words: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The first word of each; of those that several share, the next that is their own, else the word with the id."""
    counts = Counter(word.lower() for own in words.values() for word in dict.fromkeys(own))
    first = Counter(own[0].lower() for own in words.values())

    def choose(name: str, own: Sequence[str]) -> str:
        if first[own[0].lower()] == 1:
            return own[0]
        return next((word for word in own if counts[word.lower()] == 1), f"{own[0]} ({name})")

    return {name: choose(name, own) for name, own in words.items()}
