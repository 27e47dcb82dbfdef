"""The command line: `daptune VERB ...`. Bad input is one line on stderr and exit code 2, never a traceback.

    options.py   options of the commands          console.py   everything that is printed
    fitting.py   shared by `fit`, `demo` and `eval`

Most commands are declared in their own files. Those with much work are declared in `app.py`, and their files are
imported when they run. No import of torch or numpy at the top of a file that declares commands.

Exit codes: 0 done; 2 bad input; 130 interrupted (`fit` resumes with --resume); 1 internal error.
"""

import gc
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from daptune.errors import DaptuneError, Interrupted
from daptune.interrupts import CODE as INTERRUPTED
from daptune.interrupts import end_imports_at_once, end_silently
from daptune.text import one_line

__all__ = ["STDIN", "main", "run"]

_LONGEST = 4_000  # characters of a message

STDIN = "/dev/stdin"
"""Alternative to `-` for a list of files on standard input."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `daptune` command; ends the process with the exit code."""
    end_imports_at_once()
    try:
        code = run(argv)
    except KeyboardInterrupt:  # between two lines of ours
        code = _say("interrupted", INTERRUPTED)
    end_silently()
    gc.freeze()  # the interpreter would look for garbage in all that torch is, which takes 0.15 s
    sys.exit(code)


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command in this process and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    # the parser would take a lone "-" for an unknown option
    words = [STDIN if word == "-" else word for word in words if word != "--debug"]
    try:
        # they add their commands
        from daptune.cli import data, eval_, export, import_, methods, serve, sharing, show  # noqa: F401
        from daptune.cli.app import app
        from daptune.cli.console import alive

        verb = words[0] if words else ""
        with nullcontext() if verb == "serve" else alive(f"{verb} is starting"):
            code = app(words)
        sys.stdout.flush()  # inside the try, to catch a closed pipe
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            raise
        return _explain(error, words)


def _explain(error: BaseException, words: Sequence[str]) -> int:
    if isinstance(error, KeyboardInterrupt):
        return _say("interrupted", INTERRUPTED)

    from cyclopts import CycloptsError

    if isinstance(error, BrokenPipeError):  # `daptune predict ... | head`: the reader has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, Interrupted):
        again = shlex.join(["daptune", *(word for word in words if word != "--resume"), "--resume"])
        return _say(f"{error} Type: {again}" if words[:1] == ["fit"] else str(error), INTERRUPTED)
    if isinstance(error, CycloptsError):
        verb = words[0] if words and not words[0].startswith("-") else ""
        known = verb and "nknown command" not in str(error)
        return _say(f"{str(error).rstrip('.')}; see: daptune {verb + ' ' if known else ''}--help", 2)
    if isinstance(error, DaptuneError):
        return _say(str(error), 2)
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("daptune"):
        return _say(_not_installed(str(error.name).partition(".")[0]), 2)
    if isinstance(error, OSError):
        from daptune.files import reason

        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{reason(error)}", 2)
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error).lower():
        return _say("out of memory; try a smaller --batch-size, or --precision bf16", 2)
    return _say(
        f"internal error in daptune: {type(error).__name__}: {error}; use --debug for details and please report it", 1
    )


EXTRAS = {
    "report": ("matplotlib",),
    "export": ("onnx", "onnx_ir", "onnxruntime", "onnxscript"),
    "openvino": ("openvino",),
    "serve": ("fastapi", "prometheus_client", "pydantic", "python_multipart", "starlette", "uvicorn"),
    "tune": ("optuna",),
    "cluster": ("ray",),
    "parquet": ("pyarrow",),
    "heic": ("pillow_heif",),
    "video": ("av",),
    "tensorboard": ("tensorboard",),
}
"""Packages of each extra, by import name."""


def _not_installed(module: str) -> str:
    for extra, brought in EXTRAS.items():
        if module in brought:
            return f"{module} is not installed: pip install 'daptune[{extra}]'"
    return f"{module} is not installed; only exported .onnx files work without it: pip install daptune"


def _say(message: str, code: int) -> int:
    word = "" if code == INTERRUPTED else "error: "
    print(f"daptune: {word}{one_line(message, _LONGEST)}", file=sys.stderr)  # one line, whatever the message holds
    return code
