"""The ASGI application: routes, what an error answers, start and end."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from daptune import __version__
from daptune.errors import DaptuneError
from daptune.serve.batcher import Batcher
from daptune.serve.context import Context
from daptune.serve.engine import Engine
from daptune.serve.guard import Guard, refusal
from daptune.serve.limits import Limits, Refused
from daptune.serve.metrics import Metrics
from daptune.serve.routes import adapters, health, predict

PAGE = Path(__file__).with_name("page")
logger = logging.getLogger("daptune")


def make_app(
    engine: Engine, limits: Limits | None = None, *, folder: Path | None = None, token: str | None = None
) -> FastAPI:
    """The application for an engine; with an `AdapterPool` and a `folder`, adapters can be taught and added.

    `app.state.context` is what the routes share. With a `token` every route but the page and the health checks asks
    for it, without one only requests to a loopback host are answered (`daptune.serve.guard`).
    """
    limits, metrics = limits or Limits(), Metrics()
    context = Context(engine, limits, metrics, Batcher(engine.run, limits, metrics), folder)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        context.batcher.start()
        yield
        await context.batcher.stop()
        if context.trainer is not None:
            await context.in_thread(context.trainer.close)
        context.threads.shutdown()

    app = FastAPI(title="daptune", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.context = context
    for routes in (health, adapters, predict):
        app.include_router(routes.router)
    if not hasattr(engine, "backbone"):  # an exported model: nothing below may import torch
        return _finished(app, token)
    _add_pool(app, context)
    return _finished(app, token)


def _add_pool(app: FastAPI, context: Context) -> None:
    from daptune.serve.lessons import Lessons
    from daptune.serve.pool import AdapterPool
    from daptune.serve.routes import teach
    from daptune.serve.training import Trainer

    if isinstance(context.engine, AdapterPool):
        context.pool = context.engine
        if context.folder is not None:
            context.lessons = Lessons(context.folder)
            context.trainer = Trainer(context.pool, context.lessons)
    app.include_router(teach.router)


def _finished(app: FastAPI, token: str | None) -> FastAPI:
    context: Context = app.state.context

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE), "page")
    app.add_middleware(Guard, token=token, max_bytes=context.limits.max_bytes, metrics=context.metrics)

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
        said = "there is nothing at " + request.url.path if error.status_code == 404 else str(error.detail)
        answer = refusal(Refused(error.status_code, said))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        logger.error("a fault of daptune: %s: %s", type(error).__name__, error)
        return refusal(Refused(500, f"a fault of daptune: {type(error).__name__}; the server's log has more."))

    return app
