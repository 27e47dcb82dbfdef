"""Class names as CLIP reads them: comparison, order and checks."""

import logging
import unicodedata
from collections.abc import Sequence
from typing import Literal

from daptune.errors import DaptuneError, DataError

_log = logging.getLogger("daptune")


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


def check_class_names(
    names: Sequence[str],
    *,
    fewest: int = 1,
    alike: Literal["refused", "marked", "logged"] = "refused",
    error: type[DaptuneError] = DataError,
) -> tuple[str, ...]:
    """Return the names; raises `error` for fewer than `fewest`, blank or repeated names, or two with the same prompt.

    Names have the same prompt if they differ only in case, "_" and Unicode form. Published lists contain such pairs:
    ImageNet's "missile" occurs twice, and the second is read as "missile_". `alike`="marked" logs pairs that differ in
    trailing underscores and refuses others; "logged" logs all.
    """
    if isinstance(names, str):
        raise error(f"class_names: expected a list of names, found the text {names!r}: put it in a list.")
    seen: dict[str, str] = {}
    for place, name in enumerate(names):
        if not isinstance(name, str) or not (key := name_key(name)):
            raise error(f"expected a class name, found {name!r} at index {place}; give each class a name of letters.")
        if key not in seen:
            seen[key] = name
            continue
        other = seen[key]
        if alike == "refused" or (alike == "marked" and name.rstrip("_") != other.rstrip("_")):
            raise error(
                f"class names {other!r} and {name!r} make the same prompt (case, '_' and Unicode form do "
                "not count); rename one, or merge their images."
            )
        if name in names[:place]:
            raise error(f"class_names: {name!r} occurs twice: give each class its own name.")
        _log.warning("Class names %r and %r read the same to CLIP: it cannot distinguish them.", other, name)
    if len(names) < fewest:
        found = f"only {names[0]!r}" if names else "none"
        raise error(f"expected at least {fewest} classes, found {found}; add another class with its images.")
    return tuple(names)
