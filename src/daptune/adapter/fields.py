"""What the fields of an `adapter.json` may hold: types, ranges and counts, checked before anything is made of them."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from daptune.names import MOST_CLASSES, MOST_NAMES, MOST_PLACES, fault_of_name
from daptune.text import one_line

BYTES, VALUES = 32_000_000, 1_500_000
"""Limits of an `adapter.json`: 25,000 classes with their names and recalls have a tenth of them."""
MOST_TENSORS = 1_000
MOST_TEMPLATES = 1_000
"""Hand-written prompts; each is encoded for every class."""
HOTTEST = 1e6
"""Largest temperature."""
_Check = Callable[[Any], bool]


def json_types(hint: Any) -> tuple[type, ...]:
    """JSON types of a field with this type hint, for isinstance."""
    parts = [get_origin(part) or part for part in (get_args(hint) if isinstance(hint, UnionType) else (hint,))]
    return tuple(list if part is tuple else part for part in parts) + ((int,) if float in parts else ())


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _maybe(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _list_of(check: _Check) -> _Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _object_of(check: _Check, **named: _Check) -> _Check:
    """An object whose entries pass the check of their name, or else `check`."""
    return lambda value: (
        isinstance(value, dict) and all(named.get(str(key), check)(item) for key, item in value.items())
    )


def _anything(value: Any) -> bool:
    return True


_SETTING = _object_of(lambda value: _scalar(value) or _list_of(_scalar)(value))
_FIGURES = _object_of(
    _anything, accuracy=_number, macro_f1=_number, micro_f1=_number, mean_average_precision=_number,
    per_class=_object_of(_maybe(_number)),
)  # fmt: skip
_PARTS: dict[str, tuple[_Check, str]] = {
    "backbone": (_object_of(_text), "texts"),
    "method_config": (_SETTING, "options and their values"),
    "train_config": (_SETTING, "settings and their values"),
    "preprocess": (_SETTING, "settings and their values"),
    "versions": (_object_of(_text), "packages and their versions"),
    "tensors": (_object_of(_list_of(lambda size: _whole(size) and size >= 0)), "a shape for every name"),
    "data": (
        _object_of(
            _anything, images=_whole, fingerprint=_text, holdout=_number, dataset=_maybe(_text), imported_from=_text,
            epoch=_maybe(_whole), templates=_list_of(_text), chosen=_object_of(_anything, why=_text),
            class_weight=lambda value: _maybe(_text)(value) or _object_of(_number)(value),
        ),
        "what is known of the training images",
    ),
    "metrics": (
        _object_of(
            _anything,
            held_out=_object_of(lambda row: not isinstance(row, dict) or _FIGURES(row), images=_whole),
        ),
        "figures",
    ),
}  # fmt: skip


def fault_in(content: Mapping[str, Any], kind: type) -> str | None:
    """The first error in the fields of an `adapter.json`, or None. `kind` is the dataclass that they become."""
    for name, allowed in _types(kind).items():
        if name not in content:
            return f"{name!r} is missing"
        if not isinstance(content[name], allowed) or isinstance(content[name], bool):
            return f"{name!r} is {_short(content[name])}"
    for name, (check, expected) in _PARTS.items():
        if not check(content[name]):
            return f"{name!r} must give {expected}"
    return _fault_of_values(content) or _fault_of_names(content)


@cache
def _types(kind: type) -> dict[str, tuple[type, ...]]:
    """JSON types of the fields that must be there."""
    types = {name: json_types(hint) for name, hint in get_type_hints(kind).items()}
    for name in ("format_version", "labels", "names", "thresholds"):  # checked by themselves; three may be missing
        del types[name]
    return types


def _fault_of_values(content: Mapping[str, Any]) -> str | None:
    for key in ("name", "sha256"):
        if key not in content["backbone"]:
            return f"'backbone' has no {key!r}"
    if content["ensemble"] and (fault := _fault_of_ensemble(content["ensemble"])):
        return f"'ensemble' is not one ({fault})"
    if not 0 < content["temperature"] <= HOTTEST:
        return f"'temperature' is {_short(content['temperature'])}, not a number above 0 and up to {HOTTEST:g}"
    if (number := len(content["tensors"])) > MOST_TENSORS:
        return f"it lists {number:,} tensors; an adapter has at most {MOST_TENSORS:,}"
    if (levels := content.get("thresholds")) is not None:
        share = _list_of(lambda value: _number(value) and 0 <= value <= 1)
        if not share(levels) or len(levels) != len(content["class_names"]):
            return "'thresholds' must be None or a probability for every class"
        if content["ensemble"]:
            return "'thresholds' and 'ensemble' exclude each other"
    if content["shots"] is not None and content["shots"] < 1:
        return f"'shots' is {content['shots']}"
    return None


def _fault_of_ensemble(mix: Mapping[str, Any]) -> str | None:
    """`daptune.methods.ensemble.Mix` checks the rest, when it is made."""
    a, templates = mix.get("a"), mix.get("templates")
    if not isinstance(a, list) or len(a) != 3 or not all(map(_number, a)):
        return f"a: expected a number of at least 0 for each of its three sources, found {_short(a)}"
    if not isinstance(templates, list) or len(templates) > MOST_TEMPLATES:
        return f"templates: expected at most {MOST_TEMPLATES:,} texts"
    if any(not isinstance(mix.get(name, []), list) for name in ("similarity", "truth")):
        return "similarity and truth: expected lists of numbers"
    return None


def _fault_of_names(content: Mapping[str, Any]) -> str | None:
    names, labels, spoken = content["class_names"], content.get("labels"), content.get("names")
    if len(names) > MOST_CLASSES:
        return f"it has {len(names):,} classes; an adapter has at most {MOST_CLASSES:,}"
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        return "'class_names' must be different, non-empty words"
    if spoken is not None:
        known = isinstance(spoken, dict) and spoken.keys() == set(names)
        if not known or not all(_list_of(_text)(own) and own for own in spoken.values()):
            return "'names' must give one name or more for every class"
        if (number := sum(map(len, spoken.values()))) > MOST_NAMES:
            return f"it has {number:,} names of classes; an adapter has at most {MOST_NAMES:,}"
        if len(names) * max(map(len, spoken.values())) > MOST_PLACES:
            return f"a class has too many names; {len(names):,} classes may have {MOST_PLACES // len(names)} each"
        if not all(name.strip() for own in spoken.values() for name in own):
            return "'names' must give one name or more for every class"
    for name in [*names, *(name for own in (spoken or {}).values() for name in own)]:
        if fault := fault_of_name(name):
            return f"the class name '{one_line(name, 40)}' cannot be used: {fault}"
    if labels is not None and not (_list_of(_whole)(labels) and len(set(labels)) == len(labels) == len(names)):
        return "'labels' must be None or a different number for every class"
    return None


def _short(value: Any) -> str:
    return one_line(repr(value), 40)
