"""Errors that users can cause.

Each message is one line: what was expected, what was found, what to type next.
"""

import errno
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from daptune.text import one_line, printable

_LONG_WORD = re.compile(r"(\S{400})\S{600,}")  # no path or name of use is as long
_LONGEST = 20_000  # characters of a message


class DaptuneError(ValueError):
    """Invalid input or a state that the user can correct; the command line prints one line, exit code 2.

    The names and values of others that a message quotes are printed on its line, with control characters escaped.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if "\n" in text:  # of a name in a file, or of a library's message
            text = " ".join(filter(None, map(str.strip, text.split("\n"))))
        return printable(_LONG_WORD.sub(r"\1...", text), _LONGEST)


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


def reason(error: OSError) -> str:
    """Why a file could not be read or written, for a message."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return error.strerror or str(error)


@contextmanager
def foreign(error: Callable[[str], DaptuneError], *, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """The boundary around a parser of bytes that others made: whatever it raises becomes `error(why)`, in one line.

    Parsers of damaged or hostile bytes fail in any way: with an IndexError, a RecursionError, a MemoryError, a panic of
    a library in Rust. No list of types is complete. An error of ours passes, and so does what ends the program, and
    what the caller tells by itself (`passing`), such as a missing file. Keep the block to the parser and to the code
    that looks into what came out of it: elsewhere, faults must stay loud.
    """
    through: tuple[type[BaseException], ...] = (DaptuneError, KeyboardInterrupt, SystemExit, GeneratorExit, *passing)
    try:
        yield
    except through:
        raise
    except BaseException as found:  # a panic of a Rust library is no Exception
        raise error(why(found)) from found


def why(error: BaseException) -> str:
    """Any error in a few words: the system's for a file, its own where a parser says something, else its type."""
    if isinstance(error, OSError) and error.strerror:
        return reason(error)
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = one_line(error)
    return text if text and isinstance(error, ValueError) else f"{type(error).__name__}: {text}".rstrip(": ")


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
    # the search takes seconds for a long text, and minutes among very many
    near = get_close_matches(name, known, n=1) if len(name) <= 100 and len(known) <= 2000 else []
    return f" Did you mean {near[0]!r}?" if near else " " + (otherwise or f"Choose from: {', '.join(known)}.")
