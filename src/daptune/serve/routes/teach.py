"""Lessons: classes and images that an adapter is taught with, its training, and what happens in it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

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
_POLL, _ALIVE = 0.1, 15.0  # seconds between two looks for events, and after which silence is broken


@dataclass(frozen=True)
class NewLesson:
    """A name for the adapter, and the first classes."""

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
    """Ids of the images that were kept, in the order of the files; of the others, why not."""

    images: list[str | None]
    errors: list[str]


@dataclass(frozen=True)
class State:
    """A lesson, and whether it is being trained."""

    lesson: Lesson
    training: bool


@router.get("")
def lessons(trainer: Teaching) -> list[Lesson]:
    """Everything that was taught here."""
    return trainer.lessons.all()


@router.post("", status_code=201)
def create(body: NewLesson, context: Shared, trainer: Teaching) -> Lesson:
    """Begin a lesson."""
    if any(each.name == body.name for each in context.engine.adapters()):
        raise Refused(409, f"there is an adapter named {body.name!r} already; choose another name.")
    return trainer.lessons.create(body.name, body.classes)


@router.get("/{name}")
def lesson(name: str, trainer: Teaching) -> State:
    """One lesson."""
    return State(trainer.lessons.get(name), trainer.running(name))


@router.delete("/{name}", status_code=204)
def delete(name: str, trainer: Teaching) -> None:
    """Remove a lesson and its images; its adapter stays."""
    trainer.check_idle(name)
    trainer.lessons.delete(name)


@router.post("/{name}/classes", status_code=201)
def add_class(name: str, body: ClassName, trainer: Teaching) -> Lesson:
    """A class more."""
    trainer.lessons.add_class(name, body.name)
    return trainer.lessons.get(name)


@router.delete("/{name}/classes/{label}", status_code=204)
def remove_class(name: str, label: str, trainer: Teaching) -> None:
    """A class and its images."""
    trainer.check_idle(name)
    trainer.lessons.remove_class(name, label)


@router.post("/{name}/classes/{label}/images", status_code=201, openapi_extra=FILES)
async def add_images(name: str, label: str, request: Request, context: Shared, trainer: Teaching) -> Added:
    """Images for a class; where none can be read, the answer is the status of the first."""
    async with form_of(request, context.limits) as form:
        files = files_in(form)
        kept: list[str | None] = []
        refused: list[Refused] = []
        with context.batcher.room(len(files)):
            for file in files:  # one after another, so that one request holds one decoded image
                try:
                    image = await context.in_thread(decoded, file, context.limits)
                    kept.append(await context.in_thread(trainer.lessons.add_image, name, label, image))
                except Refused as error:
                    kept.append(None)
                    refused.append(error)
    if len(refused) == len(files):
        raise refused[0]
    return Added(kept, [error.reason for error in refused])


@router.get("/{name}/classes/{label}/images/{identity}")
def image(name: str, label: str, identity: str, trainer: Teaching) -> FileResponse:
    """One image, a PNG file."""
    path = trainer.lessons.image(name, label, identity)
    return FileResponse(path, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})


@router.delete("/{name}/classes/{label}/images/{identity}", status_code=204)
def remove_image(name: str, label: str, identity: str, trainer: Teaching) -> None:
    """Forget an image."""
    trainer.check_idle(name)
    trainer.lessons.remove_image(name, label, identity)


@router.put("/{name}/classes/{label}/images/{identity}", status_code=204)
def move_image(name: str, label: str, identity: str, body: Move, trainer: Teaching) -> None:
    """Put an image into another class."""
    trainer.check_idle(name)
    trainer.lessons.move_image(name, label, identity, body.to)


@router.post("/{name}/training", status_code=202)
def train(name: str, trainer: Teaching) -> dict[str, str]:
    """Train on the images as they are now; follow it at `/v1/lessons/{name}/events`."""
    job = trainer.start(name)
    return {"training": job.lesson}


@router.delete("/{name}/training", status_code=202)
async def stop(name: str, trainer: Teaching) -> Response:
    """Stop the training; the adapter of an earlier one is kept."""
    trainer.job(name).stop.set()
    return Response(status_code=202)


@router.get("/{name}/events", response_class=StreamingResponse)
async def events(name: str, trainer: Teaching) -> StreamingResponse:
    """The latest training as server-sent events, from its beginning to its end: waiting, progress, then one of done,
    stopped, failed."""
    stream = _stream(trainer, trainer.job(name))
    return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _stream(trainer: Trainer, job: Training) -> AsyncIterator[str]:
    sent, silent = 0, 0.0
    while True:
        over = job.over.is_set()  # asked before the events are read: none can follow
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
