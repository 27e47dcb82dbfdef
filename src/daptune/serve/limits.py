"""Limits of requests, checks of names, and `Refused`, the answer to a request that violates them."""

import re
from dataclasses import dataclass, fields

from daptune.errors import DaptuneError
from daptune.names import FILE_NAME_BYTES, fault_of_name
from daptune.text import one_line

IMAGES_SUFFIX = ".images"  # appended to the name of an adapter: the folder of its lesson
_NAME = re.compile(r"\w(?:[\w .+-]{0,62}[\w+-])?")
_SIGNS = r"/\\\x00-\x1f\x7f<>:\"|?*"  # not allowed in folder names on some systems
_CLASS = re.compile(rf"[^\s.{_SIGNS}](?:[^{_SIGNS}]{{0,62}}[^\s.{_SIGNS}])?")
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class Limits:
    """Limits of the server; each violation has its own HTTP status."""

    max_batch: int = 16
    """Images per pass through the image tower; fewer where a pass would take long (`batcher.BATCH_SECONDS`)."""
    max_wait_ms: float = 5
    """Maximum time that an image waits for others on their way to fill its batch, in milliseconds."""
    max_queue: int = 256
    """Images accepted but not yet answered; beyond it the answer is 503 with Retry-After."""
    max_files: int = 32
    """Files per request (413)."""
    max_bytes: int = 32_000_000
    """Bytes of a request's body (413)."""
    max_pixels: int = 50_000_000
    """Pixels of an image, read from its header before decoding (413)."""
    timeout: float = 30
    """Seconds until the body of a request has arrived (408), and until its answer (504)."""
    max_connections: int = 1000
    """Open connections, and no more than half of the descriptors that the system allows; silent ones make room."""
    idle_timeout: float = 10
    """Seconds until a connection without a complete request head is closed."""
    max_loaded: int = 1000
    """Adapters in memory; the least recently used are unloaded and read again from disk on demand."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "max_wait_ms" else 1
            if not least <= value < float("inf"):
                option = "--" + field.name.replace("_", "-")
                raise DaptuneError(f"{option} must be a number of at least {least}; found {value}")


class Refused(Exception):
    """A request refused with an HTTP `status` and a one-line `reason`; `retry_after` in seconds if a retry can help."""

    def __init__(self, status: int, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry_after = status, retry_after
        self.reason = one_line(reason, 2_000)


def is_name(name: str) -> bool:
    return (
        bool(_NAME.fullmatch(name))
        and not fault_of_name(name, FILE_NAME_BYTES)
        and not name.lower().endswith(IMAGES_SUFFIX)
        and not _is_device(name)
    )


def check_name(name: str) -> str:
    """`name`. Raises `Refused` 422 if no adapter may have it."""
    if is_name(name):
        return name
    raise Refused(
        422,
        f"expected a name, not a path, of 1 to 64 letters, digits, spaces and . + - _ and at most {FILE_NAME_BYTES} "
        f"bytes, found {one_line(name, 80)!r}.",
    )


def check_class(name: str) -> str:
    """`name`. Raises `Refused` 422 if no class may have it."""
    if _CLASS.fullmatch(name) and not fault_of_name(name, FILE_NAME_BYTES) and not _is_device(name):
        return name
    raise Refused(
        422,
        f"expected a class name of 1 to 64 characters and at most {FILE_NAME_BYTES} bytes without / \\ : * ? < > | and "
        f"quotes, found {one_line(name, 80)!r}.",
    )


def _is_device(name: str) -> bool:
    return name.lower().partition(".")[0] in _DEVICES
