"""The ASGI application: routes, startup and shutdown."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

from daptune import __version__
from daptune.serve.answers import ERRORS, answer
from daptune.serve.batcher import Batcher
from daptune.serve.context import Context, Engine
from daptune.serve.counters import Counters
from daptune.serve.engine import OnnxEngine
from daptune.serve.guard import Guard
from daptune.serve.limits import Limits
from daptune.serve.routes import adapters, health, predict

PAGE = Path(__file__).with_name("page")


def make_app(
    engine: Engine,
    limits: Limits | None = None,
    *,
    folder: Path | None = None,
    reject: float | None = None,
    token: str | None = None,
) -> FastAPI:
    """The application for an engine; with a pool and a `folder`, adapters can be trained and added.

    `app.state.context` is the shared state of the routes. `reject` is the default of requests, for adapters that
    judge (`Served.judges`). For `token` see `daptune.serve.guard`.
    """
    limits, counters = limits or Limits(), Counters()
    pool = None if isinstance(engine, OnnxEngine) else engine
    context = Context(engine, limits, counters, Batcher(engine.run, limits, counters), reject or 0, folder, pool)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        context.batcher.start()
        yield
        await context.batcher.stop()
        if context.trainer is not None:
            await context.in_thread(context.trainer.close)
        context.threads.shutdown()

    app = FastAPI(
        title="daptune",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers=dict.fromkeys(ERRORS, answer),
    )
    app.state.context = context
    for routes in (health, adapters, predict):
        app.include_router(routes.router)
    if pool is not None:
        from daptune.serve.lessons import Lessons  # here, because lessons and training import torch
        from daptune.serve.routes import teach
        from daptune.serve.trainer import Trainer

        context.trainer = None if folder is None else Trainer(pool, Lessons(folder))
        app.include_router(teach.router)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE), "page")
    app.add_middleware(Guard, token=token, limits=limits, counters=counters)
    return app
