"""Processes that end when the one that started them ends, also if that is killed.

Linux tells a process of its parent's death (prctl). Everywhere, a thread waits for the parent besides.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import wait

_LOOK = 1.0
"""Seconds between two looks at the parent, where nothing tells of its death."""
_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, *, by_kernel: bool = True) -> None:
    """From now on this process is killed when the process `parent`, its parent, has ended; at once if it has already.

    by_kernel: also by the kernel, without delay. It takes the end of the parent's thread that started this process for
    the end of the parent: not for processes that are started in a thread of their own.
    """
    if by_kernel and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_watch, args=(parent,), name="daptune-parent", daemon=True).start()
    if os.getppid() != parent:
        _end()


def in_main_thread() -> bool:
    """Whether this thread lasts as long as its process: the value of `by_kernel` for processes that it starts."""
    return threading.current_thread() is threading.main_thread()


def _watch(parent: int) -> None:
    started_by = multiprocessing.parent_process()
    if started_by is not None and started_by.pid == parent:
        wait([started_by.sentinel])
    else:
        while os.getppid() == parent:
            time.sleep(_LOOK)
    _end()


def _end() -> None:
    """At once: what it was doing is lost, as if it had been killed together with its parent."""
    os._exit(1)
