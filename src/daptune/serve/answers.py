"""What an error answers: a status, one reason as JSON, and where it helps when to come back."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from daptune.errors import DaptuneError
from daptune.serve.limits import Refused

logger = logging.getLogger("daptune")


def refusal(error: Refused) -> JSONResponse:
    """The answer to a request that is refused."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": error.reason}, error.status, headers)


def add_answers(app: FastAPI) -> None:
    """Let every error of the routes become one of these answers."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return refusal(error)

    @app.exception_handler(DaptuneError)
    async def bad_state(_: Request, error: DaptuneError) -> JSONResponse:
        return refusal(Refused(409, str(error)))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
        return refusal(Refused(422, f"{where}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        said = f"there is nothing at {request.url.path}." if error.status_code == 404 else str(error.detail)
        answer = refusal(Refused(error.status_code, said))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        logger.error("a fault of daptune: %s: %s", type(error).__name__, error)
        return refusal(Refused(500, f"a fault of daptune: {type(error).__name__}; the server's log has more."))
