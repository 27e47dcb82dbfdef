"""Access control and limits on request bodies, as middleware in front of every route.

Without a token only this machine has access. Web pages of other sites could send requests through the user's browser,
so the Host must be a loopback name (against DNS rebinding), and requests that change something must not come from
another site's page (against cross-site requests). A token, which other sites cannot know, replaces both checks.
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
                raise Refused(503, f"{MOST_SENDING} requests are already running; try again later.", retry_after=2)
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
            raise Refused(403, f"this server accepts requests to localhost only, found the host {host[:80]!r}.")
        if scope["method"] in _READING:
            return
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refused(403, "pages of other sites may not change anything on this server.")

    def _bounded(self, headers: Headers, receive: Receive) -> Callable[[], Awaitable[Message]]:
        """`receive` that raises `Refused` for a body that is too large, actual or declared (413), or too slow (408)."""
        most, seconds, declared = self.limits.max_bytes, self.limits.timeout, headers.get("content-length", "")
        too_many = Refused(413, f"the body has more than {most} bytes; send fewer or smaller files.")
        if declared.isdecimal() and int(declared) > most:
            raise too_many
        seen, complete, due = 0, False, time.monotonic() + seconds

        async def bounded() -> Message:
            nonlocal seen, complete
            if complete:  # waits for the client to disconnect: no timeout
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
