"""Every error that a user can cause, as one tree.

    DaptuneError            also a ValueError: bad input, said in one line
    ├── DataError           images, folders, tables, labels
    ├── BackboneError       names, checkpoints, tokens, precision of the frozen CLIP
    ├── MethodError         a method, its options, its class names
    ├── AdapterError        a saved adapter: damaged, newer, or of another backbone
    ├── TrainingError       training cannot continue; the last good state is kept
    │   └── Interrupted     asked to stop; resume with --resume
    ├── PlanError           a plan of runs, or the folder of its results
    └── MissingExtraError   an optional package is not installed

Each message is one line: what was expected, what was found, what to type next.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class DaptuneError(ValueError):
    """Bad input or a state that the user can mend; the command line prints it as one line, exit code 2."""


class DataError(DaptuneError):
    """Images, folders, tables or labels are not as expected."""


class BackboneError(DaptuneError):
    """A CLIP cannot be found, read or run as asked."""


class MethodError(DaptuneError):
    """A method, an option of it, or the class names do not fit."""


class AdapterError(DaptuneError):
    """A saved adapter is damaged, made by a newer version, or belongs to another backbone."""


class TrainingError(DaptuneError):
    """Training cannot continue; the last good state is kept."""


class Interrupted(TrainingError):
    """Training was asked to stop and has saved its state; `--resume` continues from there."""


class PlanError(DaptuneError):
    """A plan of runs asks for what there is not, or the folder holds the results of another one."""


class MissingExtraError(DaptuneError):
    """An optional package is not installed; the message carries the install command."""


def suggest(name: str, choices: Iterable[str], *, otherwise: str = "") -> str:
    """` Did you mean 'x'?` for the nearest choice, else `otherwise` or ` Choose from: ...`; to append to a message."""
    known = sorted(choices)
    near = get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else " " + (otherwise or f"Choose from: {', '.join(known)}.")
