"""Who may ask, and how much: checked in front of every route, so that no route can forget it.

Without a token the server is for programs and pages of this machine alone. A page of another site, open in the same
browser, could reach it too; so the Host must be this machine (against DNS rebinding) and what changes something must
come from the server's own page or from no page at all (against cross-site requests). A token, which no other site
can know, replaces both.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daptune.serve.answers import refusal
from daptune.serve.counters import Counters
from daptune.serve.limits import Limits, Refused

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
MOST_SENDING = 128
_OPEN = ("/", "/healthz", "/readyz", "/openapi.json")  # what tells nothing about adapters needs no token
_READING = {"GET", "HEAD", "OPTIONS"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware: host, origin, token, size and pace of the body; headers and counters of every answer."""

    def __init__(self, app: ASGIApp, *, token: str | None, limits: Limits, counters: Counters) -> None:
        self.app, self.token, self.limits, self.counters = app, token, limits, counters
        self._sending = 0  # requests whose body arrives or is worked on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the app do it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, started = time.monotonic(), 500, False

        async def answer(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        writing = scope["method"] not in _READING
        self._sending += writing
        try:
            headers = Headers(scope=scope)
            self._admit(scope, headers)
            if self._sending > MOST_SENDING:
                raise Refused(503, f"{MOST_SENDING} requests are under way already.", retry_after=2)
            await self.app(scope, self._bounded(headers, receive), answer)
        except Refused as error:
            if started:
                raise
            await refusal(error)(scope, receive, answer)
        finally:
            self._sending -= writing
            route = getattr(scope.get("route"), "path", "other")
            self.counters.requests.labels(route, str(status)).inc()
            self.counters.request_seconds.labels(route).observe(time.monotonic() - began)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if self.token is not None:
            path = scope["path"]
            scheme, _, given = headers.get("authorization", "").partition(" ")
            right = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token.encode())
            if not right and path not in _OPEN and not path.startswith("/page/"):
                raise Refused(401, "expected the header Authorization: Bearer TOKEN with the server's token.")
            return
        if _hostname(host) not in LOOPBACK:
            raise Refused(403, f"this server answers to localhost alone, found the host {host[:80]!r}.")
        if scope["method"] in _READING:
            return
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refused(403, "a page of another site may change nothing here.")

    def _bounded(self, headers: Headers, receive: Receive) -> Callable[[], Awaitable[Message]]:
        """`receive`, raising `Refused` once the body has more bytes than it may (413), says that it will, or is late
        (408)."""
        most, seconds, declared = self.limits.max_bytes, self.limits.timeout, headers.get("content-length", "")
        too_many = Refused(413, f"the body has more than {most} bytes; send fewer or smaller files.")
        if declared.isdecimal() and int(declared) > most:
            raise too_many
        seen, complete, due = 0, False, time.monotonic() + seconds

        async def bounded() -> Message:
            nonlocal seen, complete
            if complete:  # waits for the client to leave, which may take its time
                return await receive()
            try:
                async with asyncio.timeout(due - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise Refused(408, f"the body did not arrive within {seconds:g} seconds.") from None
            seen += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if seen > most:
                raise too_many
            return message

        return bounded


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
