"""Answers to errors: a status, a reason as JSON, and Retry-After if a retry can help."""

import errno
import logging
from dataclasses import dataclass
from itertools import product
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Mount

from daptune.errors import DaptuneError
from daptune.files import reason
from daptune.serve.limits import Refused


@dataclass(frozen=True)
class Refusal:
    """Why a request was refused, in one line."""

    error: str


_MEANINGS = {
    400: "A damaged body.",
    401: "No token, or a wrong one.",
    403: "The host or the origin of the request is not this machine.",
    404: "No such name.",
    408: "The body did not arrive in time.",
    409: "The state of the server does not allow this: a name is taken, an adapter is broken, a training runs.",
    413: "Too many bytes, files, pixels, images or classes.",
    415: "Not the expected kind of body or file.",
    422: "A value that is not allowed, or a file that is not what it should be.",
    500: "A fault of the server.",
    503: "Too much to do, or stopping; Retry-After has the seconds to wait.",
    504: "No answer in time.",
    507: "The server's disk is full.",
}
_ALWAYS = (401, 403, 413, 500, 503)
"""Statuses of every request: of the guard in front of all routes, of faults, and of a server that is full."""
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
JSON_BODY = (400, 408, 422)
UPLOAD = (400, 408, 415, 422, 507)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route for the OpenAPI schema; those of every route are added."""
    return {status: {"model": Refusal, "description": _MEANINGS[status]} for status in sorted({*_ALWAYS, *statuses})}


def content(media_type: str) -> dict[int | str, dict[str, Any]]:
    """The answer of a route that sends no JSON, for the OpenAPI schema; its `response_class` is `Response`."""
    binary = {} if media_type.startswith("text/") else {"format": "binary"}
    return {200: {"content": {media_type: {"schema": {"type": "string", **binary}}}}}


CLIENT_GONE = 499
"""Status in the metrics where a client went away; nobody is there to read it."""
logger = logging.getLogger("daptune")


def refusal(error: Refused) -> JSONResponse:
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": error.reason}, error.status, headers)


async def answer(request: Request, error: Exception) -> Response:
    cause = error.__cause__ if isinstance(error, HTTPException) else None
    if isinstance(cause, Refused | ClientDisconnect):  # fastapi puts an error of its own in the place of a body's
        error = cause
    if isinstance(error, ClientDisconnect):
        return Response(status_code=CLIENT_GONE)
    if isinstance(error, Refused):
        return refusal(error)
    if isinstance(error, DaptuneError):
        return refusal(Refused(409, str(error)))
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
        return refusal(Refused(422, f"{where}: {first['msg']}"))
    if isinstance(error, HTTPException):
        said = f"there is nothing at {request.url.path}." if error.status_code == 404 else str(error.detail)
        found = refusal(Refused(error.status_code, said))
        found.headers.update(error.headers or {})
        if error.status_code == 405:
            found.headers["Allow"] = ", ".join(allowed(request))
        return found
    if isinstance(error, OSError):
        return refusal(_of_system(error))
    logger.error("internal error in daptune: %s: %s", type(error).__name__, error)
    return refusal(Refused(500, f"internal error in daptune: {type(error).__name__}; see the server's log."))


def allowed(request: Request) -> list[str]:
    """The methods of a path over all of its routes; the framework's own answer names those of the first."""
    found = set()
    for route, method in product(request.app.router.routes, _METHODS):
        match, _ = route.matches({**request.scope, "method": method})
        if match is Match.FULL and not isinstance(route, Mount):
            found.add(method)
    return sorted(found) or ["GET", "HEAD"]  # of files, whose app has a scope of its own


def _of_system(error: OSError) -> Refused:
    """What a file that cannot be read or written means to a client; its path is nobody's business."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refused(507, "the server's disk is full; make room there, then try again.")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Refused(503, "the server has too many open files; try again later.", retry_after=2)
    if error.errno == errno.EBUSY:
        return Refused(503, "another request or program is writing this; try again later.", retry_after=2)
    if isinstance(error, FileExistsError) or error.errno == errno.ENOTEMPTY:
        return Refused(409, "this name was taken by another request; choose another name.")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Refused(404, "this was removed meanwhile.")
    logger.error("a file of the server cannot be used: %s", error)
    return Refused(500, f"a file of the server cannot be used ({reason(error)}); see the server's log.")


ERRORS = (Refused, DaptuneError, RequestValidationError, HTTPException, ClientDisconnect, OSError, Exception)
