"""A first look at a file by a library that knows no bounds, in a process of its own that has them.

What a MATLAB or ONNX file makes its library allocate does not follow from its size. So it is read once in a process
with limits on memory and time; only what passes is read here. A crash of the library ends that process and no other.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module

from daptune.errors import why
from daptune.foreign import megabytes

_CODE = "import sys; from daptune.isolated import answer; answer(*sys.argv[1:])"
_WAITING = 30
"""Seconds for Python to start and to import a library, on a machine that is busy."""


def try_first(function: str, path: str, *, memory: int, seconds: int) -> None:
    """Call `module:function` with a path in a process that may take so much more memory, in bytes, and CPU time.

    Raises ValueError, in words, where it fails. On systems without such limits (Windows) nothing is tried.
    """
    if os.name != "posix":
        return
    words = [sys.executable, "-c", _CODE, function, str(memory), str(seconds), path]
    there = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    limits = f"{megabytes(memory)} and {seconds} seconds"
    try:
        done = subprocess.run(words, capture_output=True, env=there, timeout=10 * seconds + _WAITING, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"it takes more than {limits} to read") from None
    said = done.stdout.decode("utf-8", "replace").rpartition("\n")[2]
    if done.returncode < 0:
        raise ValueError(f"it takes more than {limits} to read, or crashes its reader")
    if done.returncode or said:
        raise ValueError(said or "it cannot be read")


def answer(function: str, memory: str, seconds: str, path: str) -> None:
    """Be that process: say in one line why the function failed, and nothing if it did not."""
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
    try:
        called(path)
    except BaseException as error:
        sys.stdout.write("\n" + why(error))
        sys.stdout.flush()
    os._exit(0)  # without the library's own clean-up
