"""Errors that users can cause.

Each message is one line: what was expected, what was found, what to type next.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class DaptuneError(ValueError):
    """Invalid input or a state that the user can correct; the command line prints one line, exit code 2."""


class DataError(DaptuneError):
    """Images, folders, tables or labels are not as expected."""


class BackboneError(DaptuneError):
    """A CLIP cannot be found, read or run: names, checkpoints, tokens, precision, device."""


class MethodError(DaptuneError):
    """A method, its options or its class names are not valid."""


class AdapterError(DaptuneError):
    """A saved adapter is damaged, made by a newer version, or belongs to another backbone."""


class TrainingError(DaptuneError):
    """Training cannot continue; the last valid state is kept."""


class Interrupted(TrainingError):
    """Training was stopped on request and has saved its state; `--resume` continues it."""


class PlanError(DaptuneError):
    """A plan of runs is not valid, or the folder holds the results of another plan."""


class MissingExtraError(DaptuneError):
    """An optional package is not installed; the message carries the install command."""


@contextmanager
def extra(name: str, what: str, more: str = "") -> Iterator[None]:
    """Imports of the packages of an extra: if one is missing, `what` (a `{}` is its name) and how to install it."""
    try:
        yield
    except ImportError as error:
        advice = f"pip install 'daptune[{name}]'{more}"
        raise MissingExtraError(f"{what.replace('{}', str(error.name))}: {advice}") from error


def suggest(name: str, choices: Iterable[str], *, otherwise: str = "") -> str:
    """` Did you mean 'x'?` for the nearest choice, else `otherwise` or ` Choose from: ...`; to append to a message."""
    known = sorted(choices)
    near = get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else " " + (otherwise or f"Choose from: {', '.join(known)}.")
