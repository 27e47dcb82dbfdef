"""`daptune serve`: adapters over HTTP, with a page to use and teach them."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from daptune.cli.app import app
from daptune.cli.console import note, warnings_shown
from daptune.cli.options import Precision
from daptune.errors import MissingExtraError
from daptune.serve.limits import Limits

_LIMITS = Limits()


@app.command
def serve(
    *paths: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    backbone: str | None = None,
    precision: Precision | None = None,
    device: str = "cpu",
    limits: Annotated[Limits, Parameter(name="*")] = _LIMITS,
) -> int:
    """Serve adapters over HTTP, any number on one backbone in memory, with a page to use and to teach them.

    Parameters
    ----------
    paths
        Adapters; or a folder of adapters, which may be empty, to which taught and uploaded ones are written; or
        exported models (.onnx).
    host
        Address to listen at; beyond this machine it needs a token.
    port
        Port to listen at; 0 takes a free one.
    token
        What clients have to send as `Authorization: Bearer TOKEN`; also read from the variable DAPTUNE_TOKEN.
    backbone
        The frozen CLIP; by default that of the first adapter, or `tiny` where there is none yet.
    precision
        Of the frozen CLIP; by default that of the first adapter.
    device
        Device of torch to run on: `cpu`, `cuda`, `mps`.
    """
    try:
        import python_multipart  # noqa: F401  starlette asks for it when the first upload is there

        from daptune.serve import server
        from daptune.serve.app import make_app
    except ImportError as error:
        raise MissingExtraError(f"serving needs {error.name}: pip install 'daptune[serve]'") from error

    token = token or os.environ.get("DAPTUNE_TOKEN") or None
    server.check_exposure(host, token)  # all that is quick to check comes before the backbone is loaded
    sources = server.read_sources(paths)
    listening = server.open_socket(host, port)
    with warnings_shown():
        engine = server.make_engine(sources, limits, backbone=backbone, precision=precision, device=device)
        served = make_app(engine, limits, folder=sources.folder, token=token)
        count = len(engine.adapters())
        note(f"daptune: {count} adapter{'' if count == 1 else 's'} at {server.url_of(listening)}  (Ctrl-C stops)")
        server.run(served, listening, patience=limits.timeout)
    return 0
