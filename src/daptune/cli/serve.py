"""`daptune serve`: adapters over HTTP, with a web page."""

import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from daptune.cli.app import command
from daptune.cli.console import note, warnings_shown
from daptune.cli.options import AllowDownload, Engine, RunPrecision
from daptune.errors import DataError, extra
from daptune.serve.limits import Limits
from daptune.serve.threads import in_own_thread

_LIMITS = Limits()


@command
def serve(
    *paths: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    backbone: str | None = None,
    precision: RunPrecision | None = None,
    device: str = "cpu",
    engine: Engine | None = None,
    reject: float | None = None,
    allow_download: AllowDownload = False,
    limits: Annotated[Limits, Parameter(name="*")] = _LIMITS,
) -> int:
    """Serve any number of adapters of one backbone over HTTP, with a web page to test adapters and train new ones.

    Parameters
    ----------
    paths
        Adapters; or exported models (.onnx); or a folder of adapters, which may be empty, where new and uploaded
        adapters are saved.
    host
        Address to listen on; an address that other machines can reach requires a token.
    port
        Port to listen on; 0 chooses a free one.
    token
        Clients must send it as `Authorization: Bearer TOKEN`; default: the variable DAPTUNE_TOKEN.
    backbone
        The frozen CLIP; default: that of the first adapter, or `photo` without adapters.
    precision
        Precision of the frozen CLIP; default: that of the first adapter. `int8`: of exported models, with --engine
        openvino.
    device
        Torch device: `cpu`, `cuda`, `mps`; of exported models `cpu` or `cuda`.
    engine
        What runs exported models, as for `daptune predict`: `onnxruntime` or `openvino`.
    reject
        Share of known images that may be called unknown, e.g. 0.05, in requests that do not say; adapters without
        statistics of known images answer as without it.
    """
    with extra("serve", "serving needs {}"):
        import python_multipart  # noqa: F401  starlette imports it only at the first upload

        from daptune.serve import server
        from daptune.serve.app import make_app

    if reject is not None and not 0 < reject < 1:
        raise DataError(f"--reject must be a share between 0 and 1, such as 0.05; found {reject:g}")
    token = token or os.environ.get("DAPTUNE_TOKEN") or None
    server.check_exposure(host, token)  # quick checks before the backbone is loaded
    sources = server.read_sources(paths)
    with server.open_socket(host, port) as listening, warnings_shown():
        options: dict[str, Any] = {"precision": precision, "device": device, "allow_download": allow_download}
        options |= {"backbone": backbone, "engine": engine}
        loaded = in_own_thread(server.make_engine, sources, limits, **options)
        served = make_app(loaded, limits, folder=sources.folder, reject=reject, token=token)
        count = sum(each.status == "ready" for each in loaded.adapters())
        line = f"daptune: {count} adapter{'' if count == 1 else 's'} at {server.url_of(listening)}  (Ctrl-C stops)"
        server.run(served, listening, ready=lambda: note(line), write=note)
    return 0
