"""A thread that ends with its work."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def in_own_thread(work: Callable[..., T], *args: Any, **options: Any) -> T:
    """What `work` returns or raises, from a thread that ends with it; for what a process does beside its main work.

    A thread in which torch shares out a product keeps helpers for the next one, and once a process has more helpers
    than cores, OpenMP's (libgomp) fall asleep between products: each pass of a ViT-B/16 over one image then takes a
    quarter longer. With its thread, its helpers end.
    """
    found: list[T] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            found.append(work(*args, **options))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body, name="daptune-once", daemon=True)  # Ctrl-C does not wait for it
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
