"""Class names: comparison, order and checks; the names that stand for a class in prompts; which ones CLIP can read.

A class has a label, as the user wrote it, which every answer uses. Its prompt says the label, or other names that were
given for it (`names_by_class`): a label such as `n01532829` or `猫` means nothing to an English text tower.
"""

import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from daptune.errors import DaptuneError, DataError
from daptune.text import UNSAFE, printable

ClassNames = Sequence[str] | Mapping[Any, str | Sequence[str]]
"""Labels, which are then the names in the prompts; or label -> the name in its prompt, or several to average."""

MOST_CLASSES = 25_000
"""Classes of a classifier. ImageNet-21k has 21,841; their texts take seconds to encode."""
MOST_NAMES = 50_000
"""Names in the prompts of all classes together."""
MOST_PLACES = 200_000
"""Classes times the largest number of names of one: the features of names are gathered in rows of equal length."""
NAME_BYTES = 1_000
"""Bytes of a class name in UTF-8; the 77 tokens of a text tower have about 400."""
FILE_NAME_BYTES = 200
"""Bytes of a name that a file is called by: file systems take 255, and work under way needs a suffix."""

_TOLD = 20  # so many pairs of names are told one by one
_log = logging.getLogger("daptune")
_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d+")
_WNID = re.compile(r"n\d{8}")
_NUMBERED = {
    "class",
    "cls",
    "category",
    "label",
    "id",
    "idx",
    "index",
    "no",
    "nr",
    "item",
    "object",
    "group",
    "species",
}
"""Words that say nothing of a class that is called by them and a number."""


def readable(text: str) -> str:
    """A name as used in prompts: "_" becomes a blank, as in CoOp."""
    return text.replace("_", " ")


def name_key(name: str) -> str:
    """A name as CLIP's tokenizer sees it: NFC, "_" as a blank, single blanks, lower case."""
    return " ".join(readable(unicodedata.normalize("NFC", name)).split()).lower()


def plain_key(name: str) -> str:
    """A name of the package's own (a data set, a method) in any usual spelling: letters and digits in lower case."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def sort_key(name: str) -> tuple[str, str]:
    """Sort by NFC form, so that file systems that decompose names give the same class indices."""
    return unicodedata.normalize("NFC", name), name


def fault_of_name(name: str, most: int = NAME_BYTES) -> str:
    """What is wrong with a name of a class, an adapter or a file made from it, else empty: the one place that says so.

    A name has at most `most` bytes in UTF-8, which is what file systems count, and none of the characters that a
    terminal obeys or that cannot be written (`daptune.text.UNSAFE`, tabs and newlines).
    """
    if found := UNSAFE.search(name) or re.search(r"[\t\n]", name):
        return f"the character {printable(found[0])} is not allowed in a name"
    size = len(name.encode("utf-8"))
    return f"it has {size:,} bytes, the limit is {most}" if size > most else ""


def check_class_names(
    names: Sequence[str],
    *,
    fewest: int = 1,
    alike: Literal["refused", "marked", "logged"] = "refused",
    error: type[DaptuneError] = DataError,
) -> tuple[str, ...]:
    """Return the names; raises `error` for fewer than `fewest`, blank or repeated names, or two with the same prompt.

    So it does for more than `MOST_CLASSES`, and for a name that `fault_of_name` refuses. Names have the same prompt if
    they differ only in case, "_" and Unicode form. Published lists contain such pairs: ImageNet's "missile" occurs
    twice, and the second is read as "missile_". `alike`="marked" logs pairs that differ in trailing underscores and
    refuses others; "logged" logs all.
    """
    if isinstance(names, str):
        raise error(f"class_names: expected a list of names, found the text {names!r}: put it in a list.")
    if len(names) > MOST_CLASSES:
        raise error(f"expected at most {MOST_CLASSES:,} classes, found {len(names):,}; divide them among classifiers.")
    seen: dict[str, str] = {}
    pairs: list[tuple[str, str]] = []
    exact: set[str] = set()
    for place, name in enumerate(names):
        if not isinstance(name, str) or not (key := name_key(name)):
            found = printable(repr(name), 80)
            raise error(f"expected a class name, found {found} at index {place}; give each class a name of letters.")
        if fault := fault_of_name(name):
            raise error(f"the class name '{printable(name, 80)}' at index {place} cannot be used: {fault}; rename it.")
        repeated = name in exact
        exact.add(name)
        if key not in seen:
            seen[key] = name
            continue
        other = seen[key]
        if alike == "refused" or (alike == "marked" and name.rstrip("_") != other.rstrip("_")):
            raise error(
                f"class names {other!r} and {name!r} make the same prompt (case, '_' and Unicode form do "
                "not count); rename one, or merge their images."
            )
        if repeated:
            raise error(f"class_names: {name!r} occurs twice: give each class its own name.")
        pairs.append((other, name))
    for other, name in pairs[:_TOLD]:
        _log.warning("Class names %r and %r read the same to CLIP: it cannot distinguish them.", other, name)
    if len(pairs) > _TOLD:
        _log.warning("... and %d more pairs of class names read the same to CLIP", len(pairs) - _TOLD)
    if len(names) < fewest:
        found = f"only {names[0]!r}" if names else "none"
        raise error(f"expected at least {fewest} classes, found {found}; add another class with its images.")
    return tuple(names)


def names_by_class(
    given: ClassNames,
    *,
    alike: Literal["refused", "marked", "logged"] = "refused",
    error: type[DaptuneError] = DataError,
) -> dict[str, tuple[str, ...]]:
    """Label -> the names in its prompt, in the order of the classes: the label itself, or those of a mapping.

    Raises `error` as `check_class_names` for the labels, and for a class with an empty, repeated or missing name.
    """
    if not isinstance(given, Mapping):
        return {label: (label,) for label in check_class_names(given, alike=alike, error=error)}
    labels = check_class_names([str(label) for label in given], alike=alike, error=error)
    found = {label: _names_of(label, own, error) for label, own in zip(labels, given.values(), strict=True)}
    if (number := sum(map(len, found.values()))) > MOST_NAMES:
        raise error(f"expected at most {MOST_NAMES:,} names of all classes together, found {number:,}; give fewer.")
    if (most := max(map(len, found.values()), default=0)) * len(found) > MOST_PLACES > len(found):
        label = next(label for label, own in found.items() if len(own) == most)
        room = MOST_PLACES // len(found)
        raise error(f"class {label!r} has {most:,} names; with {len(found):,} classes, give each {room} at most.")
    same: dict[frozenset[str], str] = {}
    for label, names in found.items():
        if (other := same.setdefault(frozenset(map(name_key, names)), label)) != label:
            _log.warning("Classes %r and %r have the same names: CLIP cannot distinguish them.", other, label)
    return found


def match_names(labels: Sequence[str], given: Mapping[Any, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """`names_by_class` for the classes of a source; labels match as in `name_key`.

    Names of other classes are left out, with a line in the log. Raises DataError for a class without a name.
    """
    rows: dict[str, Any] = {}
    for label in given:
        if (other := rows.setdefault(name_key(str(label)), label)) != label:
            raise DataError(f"names are given for {other!r} and for {label!r}, which are one class; join them.")
    known = {name_key(label) for label in labels}
    lacking = [label for label in labels if name_key(label) not in rows]
    strange = [str(label) for key, label in rows.items() if key not in known]
    if lacking:
        hint = f" There are names for {_few(strange)}, which are no classes." if strange else ""
        raise DataError(
            f"no name is given for {len(lacking)} of the {len(labels)} classes: {_few(lacking)}; add one for each (its "
            f"own where that is English).{hint}"
        )
    if strange:
        _log.warning("the names for %s are left out: there are no such classes", _few(strange))
    return names_by_class({label: given[rows[name_key(label)]] for label in labels})


def own_names(names: Mapping[str, Sequence[str]]) -> bool:
    """Whether every class is called by its label in its prompt."""
    return all(list(own) == [label] for label, own in names.items())


def unreadable(names: Iterable[str], encode: Callable[[str], Sequence[int]] | None = None) -> list[str]:
    """The names that tell a CLIP nothing: ids, numbers, and with `encode` (text -> its tokens) words that it never saw.

    A word was never seen where its tokens are single letters or bytes, no fewer than its letters. Words of four
    ASCII letters at most, such as BMW, do not count, and a name with one readable word is readable.
    """
    return [name for name in names if _is_id(name) or (encode is not None and _is_strange(name, encode))]


def _is_id(name: str) -> bool:
    key = name_key(name)
    words, numbers = _WORD.findall(key), _NUMBER.findall(key)
    if key.isdecimal() or _WNID.fullmatch(key):
        return True
    if not numbers or any(len(word) > 3 and word not in _NUMBERED for word in words):
        return False
    code = any(len(number) > 4 or (number.startswith("0") and len(number) > 1) for number in numbers)
    return (bool(words) and code) or (bool(words) and all(word in _NUMBERED for word in words))


def _is_strange(name: str, encode: Callable[[str], Sequence[int]]) -> bool:
    words = _WORD.findall(name_key(name))
    return bool(words) and not any(_was_seen(word, encode) for word in words)


def _was_seen(word: str, encode: Callable[[str], Sequence[int]]) -> bool:
    return (word.isascii() and len(word) < 5) or len(encode(word)) < len(word)


def _names_of(label: str, own: str | Sequence[str], error: type[DaptuneError]) -> tuple[str, ...]:
    names = [own] if isinstance(own, str) else list(own) if isinstance(own, Sequence) else [own]
    keys: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not (key := name_key(name)):
            raise error(f"class {label!r}: expected a name of letters, found {name!r}; give it one or more.")
        if fault := fault_of_name(name):
            raise error(f"class {label!r}: the name '{printable(name, 80)}' cannot be used: {fault}; change it.")
        if key in keys:
            raise error(f"class {label!r}: the name {name!r} is given twice; remove one.")
        keys[key] = name
    if not keys:
        raise error(f"class {label!r}: expected a name of letters, found an empty list; give it one or more.")
    return tuple(keys.values())


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
