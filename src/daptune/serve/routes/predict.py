"""`POST /v1/adapters/{name}/predict`: images in, classes with probabilities out."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from daptune.predict.rows import likeliest
from daptune.serve.context import Shared
from daptune.serve.limits import Refused
from daptune.serve.uploads import files_in, form_of, name_of

router = APIRouter(tags=["predict"])

FILES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}
"""OpenAPI schema of a multipart body with files."""


@dataclass(frozen=True)
class Guess:
    """A class and its probability."""

    label: str | int
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of one file, or an error."""

    file: str
    top: list[Guess] | None = None
    zero_shot: list[Guess] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Predictions:
    """One row per file, in the same order."""

    adapter: str
    predictions: list[Prediction]


@router.post("/v1/adapters/{name}/predict", response_model_exclude_none=True, openapi_extra=FILES)
async def predict(
    name: str,
    request: Request,
    context: Shared,
    top_k: Annotated[int, Query(ge=1, description="Classes per file, most likely first.")] = 5,
    zero_shot: Annotated[bool, Query(description="Also return the prediction of zero-shot CLIP.")] = False,
) -> Predictions:
    """Classify one or more image files (multipart; in any field).

    An unreadable file gets a row with `error`. If all are unreadable, the status is that of the first.
    """
    limits = context.limits
    async with form_of(request, limits) as form:
        files = files_in(form)
        with context.batcher.room(len(files) * (1 + zero_shot)):
            try:
                async with asyncio.timeout(limits.timeout):
                    # not in the server's thread pool, where reading an adapter would block decoding
                    served = [await asyncio.to_thread(context.engine.open, name)]
                    if zero_shot:
                        served.append(await asyncio.to_thread(context.engine.open, name, zero_shot=True))
                    images = await context.decode(files, served[0].preprocess)
                    refused = [image for image in images if isinstance(image, Refused)]
                    if len(refused) == len(images):
                        raise refused[0]
                    good = [image for image in images if not isinstance(image, Refused)]
                    found = await context.batcher.classify(served * len(good), [i for i in good for _ in served])
            except TimeoutError:
                raise Refused(
                    504, f"no answer within {limits.timeout:g} seconds; send fewer images, or try again.", retry_after=5
                ) from None
    answers = iter(found)
    predictions = []
    for file, image in zip(files, images, strict=True):
        if isinstance(image, Refused):
            predictions.append(Prediction(name_of(file), error=image.reason))
        else:
            tops = [[Guess(*pair) for pair in likeliest(each.classes, next(answers), top_k)] for each in served]
            predictions.append(Prediction(name_of(file), tops[0], tops[1] if zero_shot else None))
    return Predictions(name, predictions)
