"""Class names as CLIP reads them: which are the same to it, and which lists of them can be used."""

import logging
import unicodedata
from collections.abc import Sequence
from typing import Literal

from daptune.errors import DaptuneError, DataError

_log = logging.getLogger("daptune")


def readable(text: str) -> str:
    """A name as it stands in a prompt: "_" as a blank, as in CoOp."""
    return text.replace("_", " ")


def name_key(name: str) -> str:
    """What CLIP's tokenizer sees of a name: NFC, "_" as a blank, runs of blanks as one, lower case."""
    return " ".join(readable(unicodedata.normalize("NFC", name)).split()).lower()


def sort_key(name: str) -> tuple[str, str]:
    """Order by the NFC form, so that file systems which decompose names give the same class numbers."""
    return unicodedata.normalize("NFC", name), name


def check_class_names(
    names: Sequence[str],
    *,
    fewest: int = 1,
    alike: Literal["refused", "marked", "logged"] = "refused",
    error: type[DaptuneError] = DataError,
) -> tuple[str, ...]:
    """The names, if there are `fewest` or more, none blank, none twice, and no two of one prompt; else `error`.

    Two names make one prompt where case, "_" and Unicode form alone tell them apart. A published list may need such
    pairs: ImageNet's has "missile" twice, and the second is read as "missile_". "marked" logs those that closing
    underscores tell apart and refuses the others, "logged" logs all.
    """
    if isinstance(names, str):
        raise error(f"class_names: expected a list of names, found the text {names!r}: put it in a list.")
    seen: dict[str, str] = {}
    for place, name in enumerate(names):
        if not isinstance(name, str) or not (key := name_key(name)):
            raise error(f"expected a class name, found {name!r} at place {place}; give each class a name of letters.")
        if key not in seen:
            seen[key] = name
            continue
        other = seen[key]
        if alike == "refused" or (alike == "marked" and name.rstrip("_") != other.rstrip("_")):
            raise error(
                f"class names {other!r} and {name!r} make the same prompt (case, '_' and Unicode form do "
                "not count); rename one, or put their images together."
            )
        if name in names[:place]:
            raise error(f"class_names: {name!r} is there twice: give each class a name of its own.")
        _log.warning("Class names %r and %r read the same to CLIP: it cannot tell the two apart.", other, name)
    if len(names) < fewest:
        found = f"only {names[0]!r}" if names else "none"
        raise error(f"expected at least {fewest} classes, found {found}; add another class with its images.")
    return tuple(names)
