"""From a list of paths to a running server: sources, socket, signals and shutdown."""

import errno
import ipaddress
import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from daptune.adapter.folder import adapters_in
from daptune.adapter.record import JSON_FILE, read_record
from daptune.errors import AdapterError, DaptuneError
from daptune.files import recovered
from daptune.serve.engine import Engine, OnnxEngine
from daptune.serve.limits import Limits, Refused, check_name

logger = logging.getLogger("daptune")


@dataclass(frozen=True)
class Sources:
    adapters: dict[str, Path]
    models: dict[str, Path]
    folder: Path | None


def read_sources(paths: Sequence[Path]) -> Sources:
    """Sort paths into adapters, exported models and at most one folder. Raises AdapterError for any other mix."""
    adapters: dict[str, Path] = {}
    models: dict[str, Path] = {}
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
            for each in adapters_in(path):
                put(adapters, each.name, each.path)
    if models and (adapters or folder):
        raise AdapterError("exported models and adapters cannot be served together; start one server for each.")
    if not models and not adapters and folder is None:
        raise AdapterError("expected adapters to serve, found none; name adapters or a folder, which may be empty.")
    return Sources(adapters, models, folder)


def make_engine(
    sources: Sources, limits: Limits, *, backbone: str | None = None, precision: str | None = None, device: str = "cpu"
) -> Engine:
    """Load the models, or one backbone (default: that of the first adapter) with its adapters.

    Unusable adapters of a served folder are skipped with a warning; one named explicitly raises AdapterError.
    """
    if sources.models:
        return OnnxEngine(sources.models)

    from daptune.clip.backbone import load_backbone
    from daptune.serve.pool import AdapterPool

    @contextmanager
    def left_out_where_it_fails(path: Path) -> Iterator[None]:
        try:
            yield
        except AdapterError as error:
            if path.parent != sources.folder:
                raise
            logger.warning("skipped: %s", error)

    records = {}
    for name, path in sources.adapters.items():
        with left_out_where_it_fails(path):
            records[name] = read_record(path)
    first = next(iter(records.values()), None)
    chosen = backbone or (first.backbone["name"] if first else "photo")
    kept = first.backbone.get("precision", "auto") if first else "auto"
    pool = AdapterPool(load_backbone(chosen, precision=precision or kept, device=device), max_loaded=limits.max_loaded)
    for name in records:
        with left_out_where_it_fails(sources.adapters[name]):
            pool.add(sources.adapters[name], name)
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
    """uvicorn waits for open requests at shutdown, so endless event streams have to be closed first."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app: Any = self.config.app
        if app.state.context.trainer is not None:
            app.state.context.trainer.closing = True
        super().handle_exit(sig, frame)


def run(app: FastAPI, listening: socket.socket, *, patience: float) -> None:
    """Serve until SIGTERM or SIGINT, then finish accepted requests for at most `patience` seconds."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=max(1, round(patience)),
    )
    # uvicorn raises the received signals again after shutdown: ignore them
    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _Server(config).run(sockets=[listening])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        listening.close()
