"""Lists of names for classes: what `--names` reads, and the JSON lists that stand beside a data set.

names.csv    columns folder,name; several rows of a folder give it several names
names.json   {"1": "pink primrose"}, {"1": ["pink primrose", "a pink flower"]}, and ImageNet's
             {"0": ["n01440764", "tench"]}, which names the number and the id
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from daptune.data.tabular import LABEL_COLUMNS, csv_rows, find_column
from daptune.errors import DataError, foreign, reason
from daptune.foreign import read_json
from daptune.names import name_key

WNID = re.compile(r"n\d{8}")
FOLDER_COLUMNS = ("folder", *LABEL_COLUMNS)
NAME_COLUMNS = ("name", "names", "prompt", "description")
LARGEST = 64_000_000
"""Bytes of a list; 21,841 classes with twenty descriptions each have half as many."""


def read_names(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Folder or label -> its names, of a .csv, .tsv or .json file.

    Raises DataError in one line for a file of another kind, one that cannot be read, and an empty or repeated name.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in (".csv", ".tsv", ".json"):
        raise DataError(f'{path}: expected names in a .csv (folder,name) or a .json ({{"folder": "name"}}).')
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read ({reason(error)}); give a file of names.") from None
    if size > LARGEST:
        raise DataError(f"{path}: a list of names has {LARGEST // 1_000_000} MB at most, found {size // 1_000_000} MB.")
    found = json_names(path) if path.suffix.lower() == ".json" else _csv_names(path)
    if not found:
        raise DataError(f"{path}: expected a name for each class, found none.")
    return found


def json_names(path: Path) -> dict[str, tuple[str, ...]]:
    """`read_names` of a JSON file. Raises DataError."""
    expected = f'{path}: expected an object of texts such as {{"1": "pink primrose"}}, found'
    with foreign(lambda why: DataError(f"{path} is not JSON ({why}); mend it, or give a .csv with folder,name.")):
        try:
            content = read_json(path, pairs=list, most=LARGEST)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({reason(error)}); give a file of names.") from None
        except UnicodeDecodeError as error:
            where = f"{error.reason} at byte {error.start}"
            raise DataError(f"{path} is not in UTF-8 ({where}); save it in UTF-8.") from None
    if not isinstance(content, list) or not all(isinstance(pair, tuple) for pair in content):
        raise DataError(f"{expected} a {'list' if isinstance(content, list) else type(content).__name__}.")
    rows: dict[str, Any] = {}
    for key, value in content:
        if key in rows:
            raise DataError(f"{path}: {key!r} occurs twice; put its names into one list.")
        own = [value] if isinstance(value, str) else value
        if not isinstance(own, list) or not own or not all(isinstance(name, str) for name in own):
            raise DataError(f"{expected} {_short(value)} for {key!r}; give a text, or a list of texts.")
        rows[key] = own
        if len(own) == 2 and WNID.fullmatch(own[0]):
            rows[key] = rows[own[0]] = own[1:]
    return {key: _checked(path, key, own) for key, own in rows.items()}


def _csv_names(path: Path) -> dict[str, tuple[str, ...]]:
    rows = csv_rows(path, "folder,name")
    header = next(rows)
    folder, name = (find_column(header, wanted) for wanted in (FOLDER_COLUMNS, NAME_COLUMNS))
    if folder is None or name is None:
        raise DataError(
            f"{path}: expected the columns folder,name, found {', '.join(header)}; put folder,name in the first line."
        )
    found: dict[str, list[str]] = {}
    for row in rows:
        key, own = (row[header.index(column)].strip() for column in (folder, name))
        if not key:
            raise DataError(f"{path}: the name {own!r} has no folder; add it in front.")
        found.setdefault(key, []).append(own)
    return {key: _checked(path, key, own) for key, own in found.items()}


def _checked(path: Path, key: str, names: Iterable[str]) -> tuple[str, ...]:
    seen: dict[str, str] = {}
    for name in names:
        if not (same := name_key(name)):
            raise DataError(f"{path}: the name of {key!r} is empty; give it one of letters.")
        if same in seen:
            raise DataError(f"{path}: {key!r} has the name {name!r} twice; remove one.")
        seen[same] = name
    return tuple(seen.values())


def _short(value: object) -> str:
    text = str(dict(value)) if isinstance(value, list) and value and isinstance(value[0], tuple) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
