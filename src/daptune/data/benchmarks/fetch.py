"""One file over http: resumed where it broke off, checked, and in its place only when it is whole."""

import hashlib
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from daptune.data.benchmarks.registry import Download
from daptune.errors import DataError
from daptune.files import read_json
from daptune.hub import hub_endpoint, hub_errors

BLOCK = 1 << 20
TIMEOUT = 60  # seconds without a byte
_AGENT = "daptune"  # some of the servers refuse Python's own name

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and those of the whole file, None where the server does not say."""


def resolve(address: str) -> str:
    """The http address behind `drive:ID`; others as they are."""
    kind, _, rest = address.partition(":")
    return f"https://drive.google.com/uc?export=download&id={rest}" if kind == "drive" else address


def fetch(download: Download, target: Path, progress: Progress | None = None) -> Path:
    """Fetch into `target` and return it; a file that is there with the right md5 (or none known) is kept.

    What has arrived waits in `target.part`, and the next call asks for the rest alone if the file on the server is
    still the same. Raises DataError in one line: no network, an error of the server, a web page in place of the file,
    a full disk, a wrong md5 (the file is removed then).
    """
    part = target.with_name(target.name + ".part")
    if target.is_file() and (not download.md5 or _md5(target) == download.md5):
        _mark(part).unlink(missing_ok=True)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    url = resolve(download.address)
    try:
        if url.startswith("hub:"):
            _receive_from_hub(url, part)
        else:
            _receive(url, part, progress)
    except urllib.error.HTTPError as error:
        raise DataError(f"{url} answers {error.code} {error.reason}; fetch {target.name} by hand.") from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{url} broke off or cannot be reached ({reason}); run the same command to resume.") from error
    if download.md5 and (found := _md5(part)) != download.md5:
        part.unlink()
        raise DataError(f"{url}: expected md5 {download.md5}, found {found}; the file was removed. Fetch it again.")
    os.replace(part, target)
    _mark(part).unlink(missing_ok=True)
    return target


def forget(target: Path) -> None:
    """Remove what is known of the download of a file that is there."""
    part = target.with_name(target.name + ".part")
    if not part.exists():
        _mark(part).unlink(missing_ok=True)


def _receive_from_hub(address: str, part: Path) -> None:
    """`hub:ORG/REPO/FILE[@REVISION]`, by huggingface_hub: with this machine's login, and resumed."""
    from huggingface_hub import hf_hub_download

    place, _, revision = address.removeprefix("hub:").partition("@")
    owner, name, file = place.split("/", 2)
    repo, waiting = f"{owner}/{name}", part.with_name(part.name + ".hub")
    unreachable = f"{address} broke off or cannot be reached ({{reason}}); run the same command to resume."
    with hub_errors(repo, DataError, unreachable, revision=revision or None):
        found = hf_hub_download(
            repo, file, repo_type="dataset", revision=revision or None, local_dir=waiting, endpoint=hub_endpoint()
        )
    os.replace(found, part)
    shutil.rmtree(waiting)


def _receive(url: str, part: Path, progress: Progress | None) -> None:
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    have = part.stat().st_size if part.is_file() else 0
    if have and (validator := _validator(part)):
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            whole = error.code == 416 and error.headers.get("Content-Range", "").endswith(f"/{have}")
        if whole:  # nothing is left to ask for
            return
        raise
    with response:
        if response.headers.get_content_type() == "text/html":
            raise DataError(f"{url} sends a web page in place of {part.stem}; open it in a browser.")
        resumed = response.status == 206
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - start > free:
            raise DataError(f"{part.parent} has {free >> 20} MiB free, {part.stem} needs {(total - start) >> 20} MiB.")
        if not resumed:
            _mark(part).write_text(json.dumps({"validator": _same(response.headers)}), encoding="utf-8")
        with part.open("ab" if resumed else "wb") as file:
            _copy(response, file, start, total, progress)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and part.stat().st_size != total:
            raise ConnectionError(f"{part.stat().st_size} of {total} bytes arrived")


def _copy(response: IO[bytes], file: IO[bytes], done: int, total: int | None, progress: Progress | None) -> None:
    while block := response.read(BLOCK):
        file.write(block)
        done += len(block)
        if progress is not None:
            progress(done, total)


def _same(headers: Any) -> str | None:
    """What tells the server that it is still the same file: a strong ETag, or the date."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _mark(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _validator(part: Path) -> str | None:
    try:
        found = read_json(_mark(part))["validator"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) else None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
