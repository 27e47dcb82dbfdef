"""SIGINT and SIGTERM as a polite question, so that a run ends between two steps with its state saved."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self


class StopSignals:
    """Within it, SIGINT and SIGTERM ask for a stop instead of ending the process; a second SIGINT ends at once.

    Handlers can be set in the main thread only; elsewhere nothing but `also` is asked. A signal that was ignored
    before (nohup) stays ignored. `agree` settles the answer among processes that train together.
    """

    def __init__(self, also: Callable[[], bool] | None = None, agree: Callable[[bool], bool] = bool) -> None:
        self._also, self._agree = also, agree
        self._received = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (None, signal.SIG_IGN):  # None: set by another library, cannot be put back
                    self._previous[number] = before
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self._received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = True

    @property
    def asked(self) -> bool:
        """Whether somebody wants the run to stop."""
        return self._agree(self._received or (self._also is not None and self._also()))
