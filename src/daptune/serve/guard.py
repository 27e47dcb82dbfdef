"""Access control and limits on request bodies, as middleware in front of every route.

Without a token only this machine has access. Web pages of other sites could send requests through the user's browser,
so the Host must be a loopback name (against DNS rebinding), and requests that change something must not come from
another site's page (against cross-site requests). A token, which other sites cannot know, replaces both checks.
"""

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daptune.serve.answers import CLIENT_GONE, refusal
from daptune.serve.connections import descriptors
from daptune.serve.counters import Counters
from daptune.serve.limits import Limits, Refused

MOST_SENDING = 128
MOST_HELD = 256_000_000
"""Bytes of all bodies at a time. Files of a megabyte or more are kept on disk, each open while its request runs."""
SPOOLED = 1_000_000  # bytes from which starlette keeps a file on disk
_OPEN = ("/", "/healthz", "/readyz", "/openapi.json")  # no token: these reveal nothing about adapters
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
    """ASGI middleware: checks host, origin, token, size and duration of the body; adds headers and counts answers."""

    def __init__(self, app: ASGIApp, *, token: str | None, limits: Limits, counters: Counters) -> None:
        self.app, self.token, self.limits, self.counters = app, token, limits, counters
        self._sending = 0  # requests with a body that are being received or processed
        self._held = 0  # bytes of their bodies
        self._most_held = max(limits.max_bytes, min(MOST_HELD, descriptors() // 4 * SPOOLED))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, started = time.monotonic(), 500, False
        body = _Body()

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
                raise Refused(503, f"{MOST_SENDING} requests are already running; try again later.", retry_after=2)
            await self.app(scope, self._bounded(headers, receive, body), answer)
        except Refused as error:
            if started:
                raise
            await refusal(error)(scope, receive, answer)
        except ClientDisconnect:
            status = CLIENT_GONE
        finally:
            self._sending -= writing
            self._held -= body.size
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
        if not _is_loopback(host):
            raise Refused(403, f"this server accepts requests to localhost only, found the host {host[:80]!r}.")
        if scope["method"] in _READING:
            return
        origin = headers.get("origin")
        foreign = origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}")
        if foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refused(403, "pages of other sites may not change anything on this server.")

    def _bounded(self, headers: Headers, receive: Receive, body: "_Body") -> Callable[[], Awaitable[Message]]:
        """`receive` that raises `Refused` for a body that is too large, actual or declared (413), or too slow (408)."""
        most, seconds, declared = self.limits.max_bytes, self.limits.timeout, headers.get("content-length", "")
        too_many = Refused(413, f"the body has more than {most} bytes; send fewer or smaller files.")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > most):
            raise too_many
        due = time.monotonic() + seconds

        async def bounded() -> Message:
            if body.complete:  # waits for the client to disconnect: no timeout
                return await receive()
            try:
                async with asyncio.timeout(due - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise Refused(408, f"the body did not arrive within {seconds:g} seconds.") from None
            length = len(message.get("body", b""))
            body.size, self._held = body.size + length, self._held + length
            body.complete = not message.get("more_body", False)
            if body.size > most:
                raise too_many
            if self._held > self._most_held:
                raise Refused(503, "other requests have filled the room for uploads; try again later.", retry_after=2)
            return message

        return bounded


@dataclass
class _Body:
    """What has come of a request's body."""

    size: int = 0
    complete: bool = False


def _is_loopback(host: str) -> bool:
    """Whether a Host header is this machine: localhost, or an address, which no name server can point elsewhere."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False
