"""Options of a method: frozen dataclasses that check themselves, and the reading of `--set option=value`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from inspect import get_annotations
from types import NoneType
from typing import Annotated, Any, Self, get_args, get_origin, get_type_hints

from ..errors import DaptuneError, MethodError, suggest
from ..foreign import parse_json

_LARGEST = 1e300  # of a number; a whole one may have any number of digits
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Fits:
    """Condition on an option's value, in its annotation: `Annotated[int, Fits(..)]`."""

    holds: Callable[[Any], bool]
    expected: str


def at_least(low: float, expected: str) -> Fits:
    return Fits(lambda value: value >= low, expected)


def two_above(low: float) -> Fits:
    return Fits(lambda values: len(values) == 2 and min(values) > low, f"two numbers above {low}")


def one_of(choices: Iterable[str]) -> Fits:
    known = tuple(choices)
    return Fits(lambda value: value in known, f"one of {', '.join(known)}")


Count = Annotated[int, at_least(1, "1 or more")]
Tokens = Annotated[int, at_least(1, "1 token or more")]
Views = Annotated[int, at_least(0, "0 (no augmentation) or more views")]
Depth = Annotated[int, at_least(0, "0 (every layer), 1 (shallow) or more layers")]
Weight = Annotated[float, at_least(0, "0 or more")]
Positive = Annotated[float, Fits(lambda x: x > 0, "a number above 0")]
Share = Annotated[float, Fits(lambda x: 0 <= x <= 1, "a number from 0 to 1")]
Block = Annotated[int, at_least(0, "0 (the paper's share of the tower) or a block from 1")]
ONE_NAME = Fits(lambda text: text.count("{}") == 1, "one {} in it for the class name")
_ONE_NAME_EACH = Fits(lambda ts: all(t.count("{}") == 1 for t in ts), 'each to hold one {}, as in "a photo of a {}."')
Templates = Annotated[tuple[str, ...], _ONE_NAME_EACH]


@dataclass(frozen=True)
class MethodConfig:
    """Base class of the options of a method. Raises `MethodError` for a value that does not fit its annotation.

    Subclasses check conditions on several options in `__post_init__`, with `require`.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            value = _conform(getattr(self, field.name), hints[field.name])
            self.require(field.name, value is not None, _name_of(hints[field.name]))
            object.__setattr__(self, field.name, value)
        for owner in type(self).__mro__:  # a field redeclared with another default keeps its conditions
            for name, kind in get_annotations(owner, eval_str=True).items():
                for fits in getattr(kind, "__metadata__", ()):
                    self.require(name, fits.holds(getattr(self, name)), fits.expected)

    @property
    def per_class(self) -> bool:
        """Whether the learned tensors are specific to the classes, so that they do not work with new names."""
        return False

    def for_new_classes(self) -> Self:
        """These options without those that depend on the classes."""
        return self

    def require(self, option: str, holds: bool, expected: str, example: object = None) -> None:
        """Raise `MethodError` for an option unless its value `holds`. The example is its default unless given."""
        if not holds:
            given = next(f.default for f in fields(self) if f.name == option) if example is None else example
            ending = f" For example: {option}={_spell(given)}" if _spell(given) else ""
            raise MethodError(f"{option}: expected {expected}, found {getattr(self, option)!r}.{ending}")

    def depth_of(self, option: str, tower: str, count: int, *, paper: int = 0) -> int:
        """Number of layers that an option selects of a tower's `count`; 0 is the paper's number, or every layer.

        Raises `MethodError` for more layers than the tower has.
        """
        asked: int = getattr(self, option)
        unset = f"the paper's {paper}" if 0 < paper < count else "every layer"
        self.require(option, asked <= count, f"0 ({unset}) to {count}, the layers of the backbone's {tower}", count)
        return asked or min(paper or count, count)

    def block_of(self, option: str, layers: int, share: float) -> int:
        """The block, from 0, that an option names from 1; for 0 the first above `share` of a tower's `layers`.

        Raises `MethodError` for a block beyond the tower's.
        """
        asked: int = getattr(self, option)
        self.require(option, asked <= layers, f"0 (the paper's share) to {layers}, the blocks of the tower", layers)
        return asked - 1 if asked else min(round(share * layers), layers - 1)


def parse_options(
    owner: str, config_class: Any, options: Mapping[str, object], error: type[DaptuneError] = MethodError
) -> dict[str, Any]:
    """Convert options given as text, e.g. from a command line or a JSON file, to the types of a dataclass's fields.

    Several values are a JSON list or separated by "|"; "none" is None. Raises `error` for an unknown name or text that
    cannot be converted.
    """
    hints = get_type_hints(config_class)
    known = {field.name: hints[field.name] for field in fields(config_class)}
    unknown = sorted(set(options) - set(known))
    if unknown:
        if not known:
            raise error(f"{owner} has no options, found {unknown[0]!r}: leave it out.")
        raise error(f"{owner} has no option {unknown[0]!r}.{suggest(unknown[0], known)}")
    parsed = dict(options)
    for name, value in options.items():
        if isinstance(value, str):
            try:
                parsed[name] = _parse(value, known[name])
            except (ValueError, KeyError):
                raise error(f"{name}: expected {_name_of(known[name])}, found {value!r}.") from None
    return parsed


def _conform(value: object, kind: Any) -> object:
    """The value as `kind` (int, float, bool, str, tuple[x, ...]), or None if it has another type."""
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            return None
        items = tuple(_conform(item, get_args(kind)[0]) for item in value)
        return None if None in items else items
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < _LARGEST else None
    # a bool is an int in Python
    return value if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) else None


def _parse(text: str, kind: Any) -> object:
    """Raises ValueError or KeyError for text that is not a `kind`."""
    if kind is str:
        return text
    if kind is bool:
        return _WORDS[text.strip().lower()]
    if NoneType in get_args(kind):
        return None if text.strip().lower() == "none" else _parse(text, get_args(kind)[0])
    if get_origin(kind) is tuple:
        if text.lstrip().startswith("["):
            return parse_json(text)
        return [_parse(part, get_args(kind)[0]) for part in text.split("|") if part.strip()]
    return kind(text)


def _name_of(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"a list, each item {_name_of(get_args(kind)[0])}"
    if NoneType in get_args(kind):
        return f"{_name_of(get_args(kind)[0])} or none"
    return {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}[kind]


def _spell(value: object) -> str:
    """A default as typed on the command line; empty without one."""
    if value is MISSING:
        return ""
    return "|".join(map(str, value)) if isinstance(value, tuple) else str(value)
