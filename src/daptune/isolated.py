"""A first look at a file by a library that knows no bounds, in a process of its own that has them.

What a MATLAB or ONNX file makes its library allocate does not follow from its size. So it is read once in a process
with limits on memory and time; only what passes is read here. A crash of the library ends that process and no other.
A file that passed is not tried again until it changes (`looked_at.py`).
"""

import os
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module

from daptune.errors import why
from daptune.foreign import megabytes
from daptune.looked_at import line_of, note_passed, passed

_CODE = "import sys; from daptune.isolated import answer; answer(*sys.argv[1:])"
_WAITING = 30
"""Seconds for Python to start and to import a library, on a machine that is busy."""
_LONGEST = 4_000  # bytes of what the process says


def try_first(function: str, path: str, *, memory: int, seconds: int) -> None:
    """Call `module:function` with a path in a process that may take so much more memory, in bytes, and CPU time.

    Raises ValueError, in words, where it fails. On systems without such limits (Windows) nothing is tried.
    """
    if os.name != "posix":
        return
    line = line_of(function, memory, seconds, path=path)
    if line is not None and passed(line):
        return
    run = _forked if sys.platform == "linux" else _started  # elsewhere libraries may not survive a fork
    found = run(function, path, memory, seconds, 10 * seconds + _WAITING)
    limits = f"{megabytes(memory)} and {seconds} seconds"
    if found is None:
        raise ValueError(f"it takes more than {limits} to read")
    code, said = found
    if code < 0:
        raise ValueError(f"it takes more than {limits} to read, or crashes its reader")
    if code or said:
        raise ValueError(said or "it cannot be read")
    if line is not None:
        note_passed(line)


def _forked(function: str, path: str, memory: int, seconds: int, wait: float) -> tuple[int, str] | None:
    """Exit code and words of a copy of this process, which has the library already; None if it takes too long."""
    import_module(function.partition(":")[0])
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the copy uses none of them
        child = os.fork()
    if child == 0:
        answer(function, str(memory), str(seconds), path, writer)
    os.close(writer)
    said, until, ready = b"", time.monotonic() + wait, select.poll()  # select.select knows 1,024 descriptors alone
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        ready.register(pipe)
        while ready.poll(1000 * max(0.0, until - time.monotonic())):
            if not (part := pipe.read(_LONGEST)):
                break
            said += part
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.decode("utf-8", "replace")


def _started(function: str, path: str, memory: int, seconds: int, wait: float) -> tuple[int, str] | None:
    """The same of a new process, which takes half a second to start."""
    words = [sys.executable, "-c", _CODE, function, str(memory), str(seconds), path]
    there = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(words, capture_output=True, env=there, timeout=wait, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.returncode, done.stdout.decode("utf-8", "replace")


def answer(function: str, memory: str, seconds: str, path: str, writer: int | None = None) -> None:
    """Be that process: write in one line why the function failed, and nothing if it did not; what it prints is lost."""
    writer = os.dup(1) if writer is None else writer
    nowhere = open(os.devnull, "w")  # noqa: SIM115  # until the end of the process
    for printed in (1, 2):
        os.dup2(nowhere.fileno(), printed)
    sys.stdout = sys.stderr = nowhere
    try:
        import resource

        module, _, name = function.partition(":")
        called: Callable[[str], object] = getattr(import_module(module), name)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + int(seconds) + 1,) * 2)
        if sys.platform == "linux":
            with open("/proc/self/statm") as statm:
                taken = int(statm.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + int(memory),) * 2)
        called(path)
    except BaseException as error:
        os.write(writer, why(error).encode()[:_LONGEST])
    finally:
        os._exit(0)  # without the library's own clean-up, and never back to the caller
