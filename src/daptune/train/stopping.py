"""Handle SIGINT and SIGTERM so that a run stops between two steps with its state saved."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self


class StopSignals:
    """Inside, SIGINT and SIGTERM request a stop instead of ending the process; a second SIGINT ends it at once.

    Handlers can only be set in the main thread; in others, only `also` requests a stop. A signal that was ignored
    before (nohup) stays ignored. `agree` combines the answers of distributed processes.
    """

    def __init__(self, also: Callable[[], bool] | None = None, agree: Callable[[bool], bool] = bool) -> None:
        self._also, self._agree = also, agree
        self._received = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (None, signal.SIG_IGN):  # None: set by another library, cannot be restored
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
        """Whether a stop was requested."""
        return self._agree(self._received or (self._also is not None and self._also()))
