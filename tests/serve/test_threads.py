"""A thread that ends with its work."""

import threading

import pytest

from daptune.serve.threads import in_own_thread


def test_it_returns_and_raises_what_the_work_does_and_its_thread_is_gone() -> None:
    seen: list[threading.Thread] = []

    def work(number: int, *, plus: int) -> int:
        seen.append(threading.current_thread())
        return 10 // number + plus

    assert in_own_thread(work, 5, plus=1) == 3
    with pytest.raises(ZeroDivisionError):
        in_own_thread(work, 0, plus=1)
    assert threading.current_thread() not in seen and not any(thread.is_alive() for thread in seen)
