"""`POST /v1/adapters/{name}/predict`: images in, classes with probabilities out."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from daptune.predict.predictor import of_set, without_statistics
from daptune.predict.rows import likeliest
from daptune.serve.answers import UPLOAD, refusals
from daptune.serve.context import Shared
from daptune.serve.engine import Answer, Served
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
    """The most likely classes of one file, or an error.

    unknown    whether it is unlike the known images: `top` then names classes that it likely does not show
    known      share of known images that are as strange
    labels     of an adapter for several labels: the classes from their threshold on; probabilities have no sum of 1
    """

    file: str
    unknown: bool | None = None
    known: float | None = None
    labels: list[Guess] | None = None
    top: list[Guess] | None = None
    zero_shot: list[Guess] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Predictions:
    """One row per file, in the same order."""

    adapter: str
    predictions: list[Prediction]


@router.post(
    "/v1/adapters/{name}/predict",
    response_model_exclude_none=True,
    openapi_extra=FILES,
    responses=refusals(404, 409, 504, *UPLOAD),
)
async def predict(
    name: str,
    request: Request,
    context: Shared,
    top_k: Annotated[int, Query(ge=1, description="Classes per file, most likely first.")] = 5,
    zero_shot: Annotated[bool, Query(description="Also return the prediction of zero-shot CLIP.")] = False,
    reject: Annotated[
        float | None,
        Query(ge=0, lt=1, description="Share of known images that may be `unknown`; 0: none. Default: the server's."),
    ] = None,
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
                    share = _share(reject, context.reject, served[0])
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
            said = [next(answers) for _ in served]
            tops = [_guesses(each, answer, top_k) for each, answer in zip(served, said, strict=True)]
            known = said[0].known if share else None
            unknown = None if known is None else known <= share
            kept = None if known is None else round(known, 4)
            plain = tops[1] if zero_shot else None
            predictions.append(Prediction(name_of(file), unknown, kept, _labels(served[0], said[0]), tops[0], plain))
    return Predictions(name, predictions)


def _share(asked: float | None, default: float, served: Served) -> float:
    """The share of known images that may be called unknown. Raises `Refused` 422 if it is asked of one without them."""
    if served.judges:
        return default if asked is None else asked
    if asked:
        raise Refused(422, without_statistics("reject"))
    return 0


def _labels(served: Served, answer: Answer) -> list[Guess] | None:
    if served.thresholds is None:
        return None
    present = set(of_set(served.classes, answer.probabilities, answer.probabilities >= served.thresholds))
    return [guess for guess in _guesses(served, answer, len(served.classes)) if guess.label in present]


def _guesses(served: Served, answer: Answer, count: int) -> list[Guess]:
    return [Guess(*pair) for pair in likeliest(served.classes, answer.probabilities, count)]
