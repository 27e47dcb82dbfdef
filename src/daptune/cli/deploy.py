"""The verbs of putting an adapter to work, and their help: export, sharing, serving."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from daptune.cli.app import app
from daptune.cli.options import Adapter, Json, Precision
from daptune.serve.limits import Limits

_LIMITS = Limits()


@app.command
def export(
    adapter: Adapter,
    /,
    *,
    to: Literal["onnx", "text-weights"] = "onnx",
    out: Path | None = None,
    dtype: Literal["fp32", "fp16", "int8"] = "fp32",
    images: Path | None = None,
    backbone: str | None = None,
    json: Json = False,
) -> int:
    """Write an adapter for other programs: one ONNX file, whose agreement with torch is measured, or class weights.

    `daptune predict model.onnx` runs the file, without torch.

    Parameters
    ----------
    to
        `onnx`: image tower with prompts, class weights, names and preprocessing in one file. `text-weights`: the
        class weights as .npy and CSV, for the same CLIP elsewhere.
    out
        File to write; by default `model.onnx` or `text-weights.npy`.
    dtype
        Of the image tower's matrices.
    images
        Folder that the agreement is measured on; by default the demo's pictures, or made-up ones.
    backbone
        Where the adapter's backbone lies now, if not under the name that the adapter has.
    """
    from daptune.cli.export import run

    return run(adapter, to=to, out=out, dtype=dtype, images=images, backbone=backbone, as_json=json)


@app.command
def push(
    adapter: Adapter, target: str, /, *, private: bool = False, revision: str | None = None, json: Json = False
) -> int:
    """Publish an adapter on the Hugging Face Hub, with its model card; log in first with `hf auth login`.

    Parameters
    ----------
    target
        `hf:user/name`; made if it is not there.
    private
        Make it visible to you alone.
    revision
        Branch to write to; made if it is not there.
    """
    from daptune.cli.push import run

    return run(adapter, target, private=private, revision=revision, as_json=json)


@app.command
def pull(backbone: str, /, *, revision: str | None = None, json: Json = False) -> int:
    """Download a backbone, or an adapter with its backbone, into the local cache, for use without a network later.

    Parameters
    ----------
    backbone
        `ViT-B-16/openai` and its like, or `hf:org/repo` of a backbone or an adapter.
    revision
        Commit, tag or branch on the hub.
    """
    from daptune.cli.pull import run

    return run(backbone, revision=revision, as_json=json)


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
    from daptune.cli.serve import run

    return run(
        paths, host=host, port=port, token=token, limits=limits, backbone=backbone, precision=precision, device=device
    )
