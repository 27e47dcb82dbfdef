"""What a request may ask for, as data, and `Refused`, the answer to one that asks for more."""

from dataclasses import dataclass, fields

from daptune.errors import DaptuneError


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
