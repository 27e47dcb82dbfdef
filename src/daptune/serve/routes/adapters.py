"""Listing, adding, removing and downloading adapters of a running server."""

import io
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile

from daptune.adapter.record import CARD_FILE, JSON_FILE, TENSOR_FILE
from daptune.errors import DaptuneError
from daptune.files import scratch
from daptune.serve.answers import JSON_BODY, UPLOAD, content, refusals
from daptune.serve.context import NO_FOLDER, NO_POOL, Shared, needed
from daptune.serve.engine import AdapterInfo
from daptune.serve.limits import Refused, check_name
from daptune.serve.routes.predict import FILES
from daptune.serve.uploads import files_in, form_of, name_of

if TYPE_CHECKING:
    from daptune.serve.pool import AdapterPool

router = APIRouter(tags=["adapters"])

PARTS = (TENSOR_FILE, JSON_FILE, CARD_FILE)
"""The files of an adapter; no others are accepted, and none of them can run code."""


@dataclass(frozen=True)
class ToAdd:
    """Name of a folder within the served folder."""

    name: str


@router.get("/v1/adapters", responses=refusals())
async def adapters(context: Shared) -> list[AdapterInfo]:
    """List all adapters."""
    return context.engine.adapters()


@router.post("/v1/adapters", status_code=201, responses=refusals(404, 409, *JSON_BODY))
def add(body: ToAdd, context: Shared) -> list[AdapterInfo]:
    """Serve an adapter from the served folder."""
    pool, place = needed(context.pool, NO_POOL), needed(context.folder, NO_FOLDER) / check_name(body.name)
    if not place.is_dir():
        raise Refused(404, f"there is no folder {body.name!r} in the served folder.")
    pool.add(place, body.name)
    return [each for each in pool.adapters() if each.name == body.name]


@router.put("/v1/adapters/{name}", status_code=201, openapi_extra=FILES, responses=refusals(409, *UPLOAD))
async def upload(name: str, request: Request, context: Shared) -> list[AdapterInfo]:
    """Upload the files of an adapter (adapter.safetensors, adapter.json, README.md) to the served folder."""
    pool, folder = needed(context.pool, NO_POOL), needed(context.folder, NO_FOLDER)
    check_name(name)
    async with form_of(request, context.limits) as form:
        parts = {name_of(file): file for file in files_in(form)}
        if unknown := sorted(set(parts) - set(PARTS)):
            raise Refused(415, f"expected the files {', '.join(PARTS)}; found {unknown[0]!r}.")
        if missing := [part for part in PARTS[:2] if part not in parts]:
            raise Refused(422, f"an adapter needs {missing[0]}; send it too: -F files=@ADAPTER/{missing[0]}")
        await context.in_thread(install, pool, folder / name, parts)
    return [each for each in pool.adapters() if each.name == name]


@router.delete("/v1/adapters/{name}", status_code=204, responses=refusals(404, 409, 422))
async def remove(name: str, context: Shared) -> None:
    """Stop serving an adapter; its files stay."""
    needed(context.pool, NO_POOL).remove(name)


@router.get(
    "/v1/adapters/{name}/download",
    response_class=Response,
    responses=content("application/zip") | refusals(404, 409, 422),
)
def download(name: str, context: Shared) -> Response:
    """Download the adapter's folder as a zip file."""
    folder = needed(context.pool, NO_POOL).folder(name)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in PARTS:
            if (folder / part).is_file():
                archive.write(folder / part, f"{folder.name}/{part}")
    plain = folder.name.encode("ascii", "replace").decode().replace('"', "").replace("?", "_")
    headers = {"Content-Disposition": f'attachment; filename="{plain}.zip"'}
    return Response(packed.getvalue(), media_type="application/zip", headers=headers)


def install(pool: "AdapterPool", place: Path, parts: dict[str, UploadFile]) -> None:
    """Try an uploaded adapter out, then move it into the folder and serve it. What fails leaves nothing behind."""
    taken = Refused(409, f"the name {place.name!r} is already taken; choose another name.")
    if place.exists() or pool.has(place.name):
        raise taken
    with scratch(place) as fresh:
        for part, file in parts.items():
            with open(fresh / part, "wb") as target:
                file.file.seek(0)
                shutil.copyfileobj(file.file, target)
        try:
            pool.try_out(fresh, place.name)
        except DaptuneError as error:
            raise Refused(422, str(error).replace(f"{fresh}/", "").replace(str(fresh), place.name)) from error
        if place.exists():  # renaming would replace an empty folder
            raise taken
        fresh.rename(place)
    try:
        pool.add(place, place.name)
    except DaptuneError as error:  # an adapter of another folder has taken this name meanwhile
        shutil.rmtree(place)
        raise Refused(409, str(error)) from error
