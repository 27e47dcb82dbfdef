"""Files of a multipart request, within the limits, and their decoding in worker threads."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from PIL import Image
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from daptune.data.images import TooManyPixels, decode
from daptune.data.table import describe
from daptune.errors import DataError
from daptune.serve.limits import Limits, Refused


@asynccontextmanager
async def form_of(request: Request, limits: Limits) -> AsyncIterator[FormData]:
    """The form of a multipart request; large files are kept on disk while it is open.

    Raises `Refused`: 415 no multipart body, 413 too many files, 400 damaged; from the guard 413 and 408.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise Refused(415, f"expected multipart/form-data with files, found {kind[:60] or 'no content type'}.")
    try:
        form = await request.form(max_files=limits.max_files, max_fields=16)
    except HTTPException as error:
        many = "Too many files" in str(error.detail)
        reason = f"more than {limits.max_files} files; send them in several requests." if many else str(error.detail)
        raise Refused(413 if many else 400, reason) from error
    except (Refused, ClientDisconnect, OSError):
        raise
    except Exception as error:  # a parser of foreign bytes: a charset of the client's choice fails in ways of its own
        raise Refused(400, f"the body is damaged ({type(error).__name__}); send names in UTF-8.") from error
    try:
        yield form
    finally:
        await form.close()


def files_in(form: FormData) -> list[UploadFile]:
    """The files of a form, in any field. Raises `Refused` 422 without files."""
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not files:
        raise Refused(422, "expected one or more files, found none: curl -F files=@picture.jpg URL")
    return files


def name_of(file: UploadFile) -> str:
    """The client's name of a file, for messages and answers; never used as a path."""
    given = (file.filename or "file").encode("utf-8", "replace").decode()  # a charset of the client's can give halves
    return given.replace("\\", "/").rpartition("/")[2][:200] or "file"


def decoded(file: UploadFile, limits: Limits) -> Image.Image:
    """Decode an uploaded image. Raises `Refused`, with the file name: 413 too many pixels, 422 not a valid image."""
    file.file.seek(0)
    data = file.file.read()
    try:
        return decode(data, max_pixels=limits.max_pixels)
    except DataError as error:
        reason = str(error).removeprefix(f"{describe(data)}: ")
        raise Refused(413 if isinstance(error, TooManyPixels) else 422, f"{name_of(file)}: {reason}") from error
