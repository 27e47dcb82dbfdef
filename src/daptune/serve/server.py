"""From a list of paths to a running server: sources, socket, signals and shutdown."""

import errno
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from daptune.adapter.folder import adapter_folders
from daptune.adapter.record import JSON_FILE, read_record
from daptune.errors import AdapterError, DaptuneError
from daptune.files import recovered
from daptune.predict import runtimes
from daptune.predict.inputs import spelt
from daptune.predict.onnx import no_engine
from daptune.serve.connections import BACKLOG, WAITING, Connection, Room
from daptune.serve.context import Context, Engine
from daptune.serve.engine import OnnxEngine
from daptune.serve.limits import Limits, Refused, check_name, is_name
from daptune.serve.notices import Notices, noticed

logger = logging.getLogger("daptune")


@dataclass(frozen=True)
class Sources:
    """broken: folders within the served one whose names no adapter may have, and why."""

    adapters: dict[str, Path]
    models: dict[str, Path]
    folder: Path | None
    broken: dict[str, str] = field(default_factory=dict)


def read_sources(paths: Sequence[Path]) -> Sources:
    """Sort paths into adapters, exported models and at most one folder. Raises AdapterError for any other mix."""
    adapters: dict[str, Path] = {}
    models: dict[str, Path] = {}
    broken: dict[str, str] = {}
    folder: Path | None = None

    def put(into: dict[str, Path], name: str, path: Path) -> None:
        if name in into:
            raise AdapterError(f"two adapters are named {name!r}: {into[name]} and {path}; rename one of the folders.")
        try:
            into[check_name(name)] = path
        except Refused as error:
            raise AdapterError(f"{path} cannot be served under this name: {error.reason}") from error

    for given in paths:
        path = recovered(given.expanduser().resolve())
        if path.suffix.lower() == ".onnx" and path.is_file():
            put(models, path.stem, path)
        elif (path / JSON_FILE).is_file():
            put(adapters, path.name, path)
        elif not path.is_dir():
            raise AdapterError(f"there is nothing to serve at {given}; to create a folder: mkdir {given}")
        elif folder is not None:
            raise AdapterError(f"expected one folder of adapters, found {folder} and {path}; serve one of them.")
        else:
            folder = path
            for each in adapter_folders(path):
                if is_name(each.name):
                    put(adapters, each.name, each)
                else:
                    broken[spelt(each.name)] = f"no adapter may be called {spelt(each.name)!r}; rename its folder."
    if models and (adapters or folder):
        raise AdapterError("exported models and adapters cannot be served together; start one server for each.")
    if not models and not adapters and folder is None:
        raise AdapterError("expected adapters to serve, found none; name adapters or a folder, which may be empty.")
    return Sources(adapters, models, folder, broken)


def make_engine(
    sources: Sources,
    limits: Limits,
    *,
    backbone: str | None = None,
    precision: str | None = None,
    device: str = "cpu",
    allow_download: bool = False,
    engine: runtimes.Engine | None = None,
) -> Engine:
    """Load the models, or one backbone with its adapters; by default that of the first adapter whose own can be loaded.

    Adapters of a served folder that cannot be used are listed as broken, with a warning; one named explicitly raises
    AdapterError. Without `allow_download`, a backbone that only an adapter names is taken from this machine alone.
    DataError for `engine` with adapters, and for what a model leaves no choice of.
    """
    if sources.models:
        return OnnxEngine(sources.models, engine=engine, backbone=backbone, precision=precision, device=device)
    if engine is not None:
        raise no_engine(next(iter(sources.adapters.values()), "ADAPTER"))

    from daptune.adapter.store import own_backbone
    from daptune.clip.backbone import Backbone, load_backbone
    from daptune.serve.pool import AdapterPool

    broken = dict(sources.broken)

    @contextmanager
    def broken_where_it_fails(name: str) -> Iterator[None]:
        try:
            yield
        except DaptuneError as error:
            if sources.adapters[name].parent != sources.folder:
                raise
            broken[name] = str(error).replace(f"{sources.folder}/", "")

    loaded: Backbone | None = None
    kept: str | None = None  # precision of the first adapter
    for name, path in sources.adapters.items():
        with broken_where_it_fails(name):
            record = read_record(path)
            kept = kept or record.backbone.get("precision", "auto")
            if backbone is not None:
                break
            found = own_backbone(record, precision=precision, device=device, allow_download=allow_download)
            if found.sha256 == record.backbone["sha256"]:
                loaded = found
                break
    if loaded is None:
        loaded = load_backbone(backbone or "photo", precision=precision or kept or "auto", device=device)
    pool = AdapterPool(loaded, max_loaded=limits.max_loaded)
    for name in [name for name in sources.adapters if name not in broken]:
        with broken_where_it_fails(name):
            pool.add(sources.adapters[name], name)
    for name, reason in broken.items():
        pool.mark_broken(name, reason)
        logger.warning("broken: %s", reason)
    return pool


def check_exposure(host: str, token: str | None) -> None:
    """Raise DaptuneError if other machines could reach a server without a token."""
    if token is not None and len(token) < 8:
        raise DaptuneError("expected a token of 8 or more characters; create one with: openssl rand -hex 16")
    if token is not None or host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise DaptuneError(
            f"{host} can be reached from other machines, so a token is needed: --token $(openssl rand -hex 16); "
            "or listen on this machine only: --host 127.0.0.1"
        )


def open_socket(host: str, port: int) -> socket.socket:
    """A bound socket. Raises DaptuneError for an unknown host or a port that cannot be used."""
    if not 0 <= port <= 65535:
        raise DaptuneError(f"--port must be a number from 0 (a free one) to 65535; found {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise DaptuneError(f"{host}:{port} is not an address to listen on ({error}).") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise DaptuneError(f"port {port} is in use; choose another with --port, such as {port + 1}") from error
        raise DaptuneError(f"cannot listen on {host}:{port}: {error.strerror}.") from error
    return listening


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class _Server(uvicorn.Server):
    """Says when it listens, and closes endless event streams before uvicorn waits for open requests at shutdown."""

    def __init__(self, config: uvicorn.Config, notices: Notices, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._notices, self._ready = notices, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(WAITING)  # uvicorn's backlog is also how many are accepted before any is counted
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # each second
            self._notices.tell_counts()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app: Any = self.config.app
        if app.state.context.trainer is not None:
            app.state.context.trainer.closing = True
        super().handle_exit(sig, frame)


def run(
    app: FastAPI,
    listening: socket.socket,
    *,
    ready: Callable[[], object] = int,
    write: Callable[[str], object] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish accepted requests for at most the time limit of an answer.

    `ready` is called as soon as connections are answered; `write` prints a line of the log, by default on stderr.
    """
    context: Context = app.state.context
    config = uvicorn.Config(
        app,
        http=partial(Connection, Room.of(context.limits, context.counters)),  # type: ignore[arg-type]
        loop="asyncio",
        ws="none",
        backlog=BACKLOG,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(context.limits.timeout)),
    )
    # uvicorn raises the received signals again after shutdown: ignore them
    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with noticed(write) as notices:
            _Server(config, notices, ready).run(sockets=[listening])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        listening.close()
