"""Ctrl-C while a command is still being imported: one line and the end, whatever library is in the middle of it.

A KeyboardInterrupt there may come out as another error, or not at all, and nothing is lost by ending at once.
"""

import os
import signal
import threading
from types import FrameType

CODE = 130
"""Exit code of an interrupted command."""
_LINE = b"daptune: interrupted\n"


def end_imports_at_once() -> None:
    """From now on SIGINT within an import ends this process in one line; elsewhere it is a KeyboardInterrupt.

    Only for the program itself: not where the signal is ignored or has a handler already.
    """
    ours = threading.current_thread() is threading.main_thread()
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


def end_silently() -> None:
    """From now on SIGINT ends this process without a word: the command is done."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupted(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, _LINE)
            os._exit(CODE)
        frame = frame.f_back
    raise KeyboardInterrupt
