"""Connections: bounded in number, and each in the time that it may be silent.

A connection is silent while it owes a request: no complete head has come since it was opened, or since its last answer.
Bytes that are no complete head do not count, or one byte a second would hold it for ever. Where the most connections
are open, a new one takes the place of the one that has been silent for longest, which is answered with 503, for its
request may be under way; where all have a request, the new one is. So the process keeps descriptors for its files, and
accepting never fails.

uvicorn has a limit on requests at a time, but none on open connections and none on the time of a head.
"""

import asyncio
import json
import logging
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from daptune.serve.counters import Counters
from daptune.serve.limits import Limits

BACKLOG = 16
"""Connections accepted in one turn of the event loop, before any of them can be counted."""
WAITING = 1024
"""Connections that the system keeps until they are accepted."""
_FALLBACK = 512
_BUSY = json.dumps({"error": "all connections of the server are in use; try again later."}).encode()
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 2\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BUSY), _BUSY)
)
_log = logging.getLogger("daptune")


def descriptors() -> int:
    """Descriptors that this process may have open."""
    try:
        import resource
    except ImportError:  # Windows
        return _FALLBACK
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _FALLBACK if soft < 0 or soft == resource.RLIM_INFINITY else soft


@dataclass(eq=False)
class Room:
    """The open connections of a server, at most `most`. waiting: the silent ones, the longest first."""

    most: int
    silent: float
    """Seconds until a silent connection is closed."""
    stalled: float
    """Seconds until a connection is closed whose client takes nothing of its answer."""
    counters: Counters
    open: int = 0
    waiting: dict["Connection", None] = field(default_factory=dict)

    @classmethod
    def of(cls, limits: Limits, counters: Counters) -> "Room":
        """Half of the descriptors may be connections; a quarter is for uploads, one for other files."""
        most = max(1, min(limits.max_connections, descriptors() // 2))
        return cls(most, limits.idle_timeout, limits.timeout, counters)

    def counted(self, change: int) -> None:
        self.open += change
        self.counters.connections.set(self.open)


class Connection(H11Protocol):
    """One connection of a `Room`, which `uvicorn.Config(http=partial(Connection, room))` hands to each."""

    def __init__(self, room: Room, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.room = room
        self._since = 0.0  # when it became silent
        self._unsent = 0
        self._look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.room.counted(1)
        if self.room.open > self.room.most:
            if not self.room.waiting:
                _log.warning("all %d connections have a request: new ones are answered with 503", self.room.most)
                self._refuse("full")
                return
            _log.warning("all %d connections are open: the longest silent one makes room for a new one", self.room.most)
            next(iter(self.room.waiting))._refuse("displaced")
        self._follow()
        self._look = self.loop.call_later(self.room.silent, self._watch)

    def connection_lost(self, exc: Exception | None) -> None:
        self.room.counted(-1)
        self.room.waiting.pop(self, None)
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():  # refused, or on its way out
            return
        super().data_received(data)
        self._follow()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._follow()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unsent = -1  # its client took something

    def _follow(self) -> None:
        """Keep track of whether it is silent."""
        answered = self.cycle is None or self.cycle.response_complete
        if not answered or self.transport.is_closing():
            self.room.waiting.pop(self, None)
        elif self not in self.room.waiting:
            self.room.waiting[self] = None
            self._since = self.loop.time()

    def _watch(self) -> None:
        """Look now and then whether it is still of use."""
        unsent, wait = self.transport.get_write_buffer_size(), self.room.silent
        if unsent:
            if unsent == self._unsent:
                _log.warning("a client took nothing of its answer for %g seconds: closed", self.room.stalled)
                self._end("stalled")
                return
            wait = self.room.stalled
        elif self in self.room.waiting:
            wait -= self.loop.time() - self._since
            if wait < 0.01:
                if self.conn.trailing_data[0]:  # browsers open connections before they need them: no reason for a line
                    _log.warning("a request had no complete head after %g seconds: closed", self.room.silent)
                self._end("silent")
                return
        self._unsent = unsent
        self._look = self.loop.call_later(wait, self._watch)

    def _refuse(self, why: str) -> None:
        self.room.waiting.pop(self, None)
        self.room.counters.closed.labels(why).inc()
        self.transport.write(_REFUSAL)
        self.transport.close()

    def _end(self, why: str) -> None:
        self.room.waiting.pop(self, None)
        self.room.counters.closed.labels(why).inc()
        self.transport.abort()
