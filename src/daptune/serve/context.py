"""`Context`, the shared state of the routes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import numpy as np
from fastapi import Depends, Request
from starlette.datastructures import UploadFile

from daptune.clip.preprocess import Preprocess
from daptune.data.parallel import default_workers
from daptune.data.quiet import telling
from daptune.serve.batcher import Batcher
from daptune.serve.counters import Counters
from daptune.serve.engine import OnnxEngine, Pixels
from daptune.serve.limits import Limits, Refused
from daptune.serve.uploads import decoded

if TYPE_CHECKING:
    from daptune.serve.pool import AdapterPool
    from daptune.serve.trainer import Trainer

T = TypeVar("T")
Engine: TypeAlias = "AdapterPool | OnnxEngine"  # `open` is called from any thread, `run` from one thread
NO_POOL = "this server runs an exported model, which does not support this; serve adapters instead."
NO_FOLDER = "this server has no folder to write to; start it with one: daptune serve FOLDER"


@dataclass
class Context:
    """pool: the engine if it serves adapters, otherwise None. trainer: None without a pool and a folder.

    reject: the default of requests; 0: none
    """

    engine: Engine
    limits: Limits
    counters: Counters
    batcher: Batcher
    reject: float = 0
    folder: Path | None = None
    pool: "AdapterPool | None" = None
    trainer: "Trainer | None" = None
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(default_workers(), "daptune-serve"))

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function that reads files or decodes images in the server's thread pool."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *args)

    async def decode(self, files: list[UploadFile], preprocess: Preprocess) -> list[Pixels | Refused]:
        """Resized and cropped pixels of each file, or the reason why it cannot be read."""

        def attempt(file: UploadFile) -> Pixels | Refused:
            try:
                return np.asarray(preprocess.crop(decoded(file, self.limits)))
            except Refused as error:
                return error

        with telling():
            return list(await asyncio.gather(*(self.in_thread(attempt, file) for file in files)))


def needed(part: T | None, missing: str) -> T:
    """`part`. Raises `Refused` 409 with the reason `missing` if it is None."""
    if part is None:
        raise Refused(409, missing)
    return part


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Shared = Annotated[Context, Depends(_context)]
