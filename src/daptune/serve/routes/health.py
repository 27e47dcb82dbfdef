"""Health, readiness, information and metrics of the server."""

from dataclasses import asdict, dataclass
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from daptune import __version__
from daptune.serve.answers import content, refusals
from daptune.serve.context import Shared
from daptune.serve.limits import Refused

router = APIRouter(tags=["server"])


@dataclass(frozen=True)
class Info:
    """Information on the server."""

    version: str
    backbone: dict[str, str] | None
    """Name, sha256 and precision; null for exported models."""
    zero_shot: bool
    teach: bool
    """Whether adapters can be trained and added."""
    reject: float
    """The share of known images that may be unknown by default; 0: none."""
    limits: dict[str, Any]


@router.get("/healthz", responses=refusals())
async def healthz() -> dict[str, str]:
    """Whether the process responds."""
    return {"status": "ok"}


@router.get("/readyz", responses=refusals())
async def readyz(context: Shared) -> dict[str, str]:
    """Whether the server accepts images."""
    if context.batcher.draining:
        raise Refused(503, "the server is stopping.", retry_after=5)
    return {"status": "ready"}


@router.get("/v1/info", responses=refusals())
async def info(context: Shared) -> Info:
    """Version, backbone and limits."""
    backbone = None
    if context.pool is not None:
        own = context.pool.backbone
        backbone = {"name": own.name, "sha256": own.sha256, "precision": own.precision}
    pool, teach = context.pool is not None, context.trainer is not None
    return Info(__version__, backbone, pool, teach, context.reject, asdict(context.limits))


@router.get("/metrics", response_class=Response, responses=content("text/plain") | refusals())
async def metrics(context: Shared) -> Response:
    """Metrics in Prometheus format."""
    context.counters.adapters.set(len(context.engine.adapters()))
    context.counters.loaded.set(context.engine.loaded)
    return Response(generate_latest(context.counters.registry), media_type=CONTENT_TYPE_LATEST)
