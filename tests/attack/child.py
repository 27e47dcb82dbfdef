"""Run a function in a process of its own, under limits on memory and time."""

import contextlib
import os
import pickle
import resource
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

MB = 2**20


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its answer or the error it raised, and what it took."""

    answer: object
    error: BaseException | None
    signal: int
    """Number of the signal that ended it, SIGALRM where its time was over; 0 where it ended by itself."""
    peak: float
    """Memory that it took beyond what its parent had, in MB."""
    seconds: float


def in_child(function: Callable[[], object], memory: int = 512, seconds: float = 20) -> Outcome:
    """Call a function in a fork of this process, which may take `memory` more MB and so many seconds."""
    reader, writer = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(function, memory, writer)
    os.close(writer)
    alarm = threading.Timer(seconds, lambda: os.kill(child, signal.SIGALRM))
    alarm.start()
    with os.fdopen(reader, "rb") as pipe:
        before: int = pickle.load(pipe)
        written = pipe.read()
    _, status, usage = os.wait4(child, 0)
    alarm.cancel()
    answer, error = pickle.loads(written) if written else (None, None)
    peak = max(0, usage.ru_maxrss * 1024 - before) / MB
    return Outcome(answer, error, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, peak, time.monotonic() - began)


def _answer(function: Callable[[], object], memory: int, writer: int) -> None:
    """Be the child: never return to the caller's frames."""
    limit = _statm(0) + memory * MB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.write(writer, pickle.dumps(_statm(1)))  # a fork has fewer pages than its parent: files are mapped anew
    answer: object = None
    error: BaseException | None = None
    try:
        answer = function()
    except BaseException as raised:
        error = raised
    with contextlib.suppress(BaseException), os.fdopen(writer, "wb") as pipe:
        try:
            pipe.write(pickle.dumps((answer, error)))
        except Exception:  # an error that cannot be pickled travels as its words
            pipe.write(pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}"))))
    os._exit(0)


def _statm(field: int) -> int:
    """Memory of this process in bytes: 0 what it may address, 1 what it has."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[field]) * resource.getpagesize()
