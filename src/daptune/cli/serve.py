"""`daptune serve`: adapters over HTTP, with a page to use and teach them."""

import os
from collections.abc import Sequence
from pathlib import Path

from daptune.cli.console import note, warnings_shown
from daptune.errors import MissingExtraError
from daptune.serve.limits import Limits


def run(
    paths: Sequence[Path],
    *,
    host: str,
    port: int,
    token: str | None,
    limits: Limits,
    backbone: str | None,
    precision: str | None,
    device: str,
) -> int:
    """Do it until SIGTERM or SIGINT. Raises DaptuneError for bad input, before anything slow is done."""
    try:
        import python_multipart  # noqa: F401  starlette asks for it when the first upload is there

        from daptune.serve import server
        from daptune.serve.app import make_app
    except ImportError as error:
        raise MissingExtraError(f"serving needs {error.name}: pip install 'daptune[serve]'") from error

    token = token or os.environ.get("DAPTUNE_TOKEN") or None
    server.check_exposure(host, token)
    sources = server.read_sources(paths)
    listening = server.open_socket(host, port)
    with warnings_shown():
        engine = server.make_engine(sources, limits, backbone=backbone, precision=precision, device=device)
        app = make_app(engine, limits, folder=sources.folder, token=token)
        count = len(engine.adapters())
        note(f"daptune: {count} adapter{'' if count == 1 else 's'} at {server.url_of(listening)}  (Ctrl-C stops)")
        server.run(app, listening, patience=limits.timeout)
    return 0
