"""Answers to errors: a status, a reason as JSON, and Retry-After if a retry can help."""

import logging

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from daptune.errors import DaptuneError
from daptune.serve.limits import Refused

logger = logging.getLogger("daptune")


def refusal(error: Refused) -> JSONResponse:
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": error.reason}, error.status, headers)


async def answer(request: Request, error: Exception) -> JSONResponse:
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
        return found
    logger.error("internal error in daptune: %s: %s", type(error).__name__, error)
    return refusal(Refused(500, f"internal error in daptune: {type(error).__name__}; see the server's log."))


ERRORS = (Refused, DaptuneError, RequestValidationError, HTTPException, Exception)
