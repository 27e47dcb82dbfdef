"""Lessons: classes, images, training and its events."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from daptune.serve.answers import JSON_BODY, UPLOAD, content, refusals
from daptune.serve.context import NO_FOLDER, Shared, needed
from daptune.serve.lessons import Lesson
from daptune.serve.limits import Refused
from daptune.serve.routes.predict import FILES
from daptune.serve.trainer import Trainer, Training
from daptune.serve.uploads import decoded, files_in, form_of

router = APIRouter(prefix="/v1/lessons", tags=["teach"])


async def _trainer(context: Shared) -> Trainer:
    return needed(context.trainer, NO_FOLDER)


Teaching = Annotated[Trainer, Depends(_trainer)]
_POLL, _ALIVE = 0.1, 15.0  # seconds between two checks for events, and until a keep-alive comment


@dataclass(frozen=True)
class NewLesson:
    """Name of the adapter and its first classes."""

    name: str
    classes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ClassName:
    """A class."""

    name: str


@dataclass(frozen=True)
class Move:
    """The class that an image belongs to."""

    to: str


@dataclass(frozen=True)
class Added:
    """Ids of the stored images in the order of the files, null for rejected ones, and the reasons for these."""

    images: list[str | None]
    errors: list[str]


@dataclass(frozen=True)
class State:
    """A lesson, whether its training is waiting or running, and whether `events` has one to tell of."""

    lesson: Lesson
    training: bool
    told: bool


@router.get("", responses=refusals(409))
def lessons(trainer: Teaching) -> list[Lesson]:
    """List all lessons."""
    return trainer.lessons.all()


@router.post("", status_code=201, responses=refusals(409, 507, *JSON_BODY))
def create(body: NewLesson, context: Shared, trainer: Teaching) -> Lesson:
    """Create a lesson."""
    if any(each.name == body.name for each in context.engine.adapters()):
        raise Refused(409, f"there is already an adapter named {body.name!r}; choose another name.")
    return trainer.lessons.create(body.name, body.classes)


@router.get("/{name}", responses=refusals(404, 409, 422))
def lesson(name: str, trainer: Teaching) -> State:
    """Get one lesson."""
    return State(trainer.lessons.get(name), trainer.running(name), trainer.told(name))


@router.delete("/{name}", status_code=204, responses=refusals(404, 409, 422))
def delete(name: str, trainer: Teaching) -> None:
    """Remove a lesson and its images; its adapter stays."""
    trainer.delete(name)


@router.post("/{name}/classes", status_code=201, responses=refusals(404, 409, 507, *JSON_BODY))
def add_class(name: str, body: ClassName, trainer: Teaching) -> Lesson:
    """Add a class."""
    trainer.lessons.add_class(name, body.name)
    return trainer.lessons.get(name)


@router.delete("/{name}/classes/{label}", status_code=204, responses=refusals(404, 409, 422, 507))
def remove_class(name: str, label: str, trainer: Teaching) -> None:
    """Remove a class and its images."""
    trainer.check_idle(name)
    trainer.lessons.remove_class(name, label)


@router.post(
    "/{name}/classes/{label}/images", status_code=201, openapi_extra=FILES, responses=refusals(404, 409, *UPLOAD)
)
async def add_images(name: str, label: str, request: Request, context: Shared, trainer: Teaching) -> Added:
    """Add images to a class. If all are unreadable, the status is that of the first."""
    async with form_of(request, context.limits) as form:
        files = files_in(form)
        kept: list[str | None] = []
        refused: list[Refused] = []
        with context.batcher.room(len(files)):
            for file in files:  # sequentially, so that a request holds only one decoded image
                try:
                    image = await context.in_thread(decoded, file, context.limits)
                    kept.append(await context.in_thread(trainer.lessons.add_image, name, label, image))
                except Refused as error:
                    kept.append(None)
                    refused.append(error)
    if len(refused) == len(files):
        raise refused[0]
    return Added(kept, [error.reason for error in refused])


@router.get(
    "/{name}/classes/{label}/images/{identity}",
    response_class=Response,
    responses=content("image/png") | refusals(404, 409, 422),
)
def image(name: str, label: str, identity: str, trainer: Teaching) -> Response:
    """Get one image as a PNG file."""
    stored = trainer.lessons.image(name, label, identity).read_bytes()  # now: a streamed file may be gone meanwhile
    return Response(stored, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})


@router.delete("/{name}/classes/{label}/images/{identity}", status_code=204, responses=refusals(404, 409, 422))
def remove_image(name: str, label: str, identity: str, trainer: Teaching) -> None:
    """Delete an image."""
    trainer.check_idle(name)
    trainer.lessons.remove_image(name, label, identity)


@router.put("/{name}/classes/{label}/images/{identity}", status_code=204, responses=refusals(404, 409, *JSON_BODY))
def move_image(name: str, label: str, identity: str, body: Move, trainer: Teaching) -> None:
    """Move an image to another class."""
    trainer.check_idle(name)
    trainer.lessons.move_image(name, label, identity, body.to)


@router.post("/{name}/training", status_code=202, responses=refusals(404, 409, 422))
def train(name: str, trainer: Teaching) -> dict[str, str]:
    """Train on the current images; see `/v1/lessons/{name}/events` for progress."""
    job = trainer.start(name)
    return {"training": job.lesson}


@router.delete("/{name}/training", status_code=202, response_class=Response, responses=refusals(404, 409, 422))
async def stop(name: str, trainer: Teaching) -> Response:
    """Stop the training; an earlier adapter is kept."""
    trainer.job(name).stop.set()
    return Response(status_code=202)


@router.get("/{name}/events", response_class=Response, responses=content("text/event-stream") | refusals(404, 409, 422))
async def events(name: str, trainer: Teaching) -> StreamingResponse:
    """Server-sent events of the latest training: waiting, check, progress, then done, stopped or failed."""
    stream = _stream(trainer, trainer.job(name))
    return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _stream(trainer: Trainer, job: Training) -> AsyncIterator[str]:
    sent, silent = 0, 0.0
    while True:
        over = job.over.is_set()  # before reading the events, so that none is missed
        for event in job.events[sent:]:
            sent, silent = sent + 1, 0.0
            yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
        if over or trainer.closing:
            return
        await asyncio.sleep(_POLL)
        silent += _POLL
        if silent >= _ALIVE:
            silent = 0.0
            yield ": still here\n\n"
