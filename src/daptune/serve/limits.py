"""What a request may ask for: bounds, names that are never a path, and `Refused`, the answer to one beyond them."""

import re
from dataclasses import dataclass, fields

from daptune.errors import DaptuneError

IMAGES_SUFFIX = ".images"
"""Behind the name of an adapter: the folder of what it was taught with."""
_NAME = re.compile(r"\w(?:[\w .+-]{0,62}[\w+-])?")
_SIGNS = r"/\\\x00-\x1f\x7f<>:\"|?*"  # what some system does not allow in the name of a folder
_CLASS = re.compile(rf"[^\s.{_SIGNS}](?:[^{_SIGNS}]{{0,62}}[^\s.{_SIGNS}])?")
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class Limits:
    """Bounds of the server; each is answered with its own status when a request goes beyond it."""

    max_batch: int = 16
    """Images that go through the image tower together."""
    max_wait_ms: float = 5
    """Longest time that an image waits for others to share a batch with, in milliseconds."""
    max_queue: int = 256
    """Images accepted and not yet answered; more are answered 503 with Retry-After."""
    max_files: int = 32
    """Files in a request (413)."""
    max_bytes: int = 32_000_000
    """Bytes in a request's body (413)."""
    max_pixels: int = 50_000_000
    """Pixels of an image, read from its header before it is decoded (413)."""
    timeout: float = 30
    """Seconds for the body of a request to arrive (408), and for its answer (504)."""
    max_loaded: int = 1000
    """Adapters in memory; those used longest ago are read from disk again when they are asked for."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "max_wait_ms" else 1
            if not least <= value < float("inf"):
                option = "--" + field.name.replace("_", "-")
                raise DaptuneError(f"{option} must be a number of at least {least}; found {value}")


class Refused(Exception):
    """A request that is answered with `status` and one `reason`; `retry_after` in seconds where asking again helps."""

    def __init__(self, status: int, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry_after = status, retry_after
        self.reason = " ".join(reason.split())


def is_name(name: str) -> bool:
    """Whether an adapter may be called so."""
    return bool(_NAME.fullmatch(name)) and not name.lower().endswith(IMAGES_SUFFIX) and not _is_device(name)


def check_name(name: str) -> str:
    """`name`, if an adapter may be called so; else `Refused` 422."""
    if is_name(name):
        return name
    raise Refused(
        422, f"expected a name of 1 to 64 letters, digits, spaces and . + - _ that is no path, found {name[:80]!r}."
    )


def check_class(name: str) -> str:
    """`name`, if a class may be called so; else `Refused` 422."""
    if _CLASS.fullmatch(name) and not _is_device(name):
        return name
    raise Refused(
        422,
        f"expected a class name of 1 to 64 signs without / \\ : * ? < > | and quotes, found {name[:80]!r}.",
    )


def _is_device(name: str) -> bool:
    return name.lower().partition(".")[0] in _DEVICES
