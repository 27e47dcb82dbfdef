"""The limits under which attacks run really end what exceeds them."""

import signal
import time

from tests.attack.child import in_child


def test_an_answer_comes_back_with_what_it_took() -> None:
    outcome = in_child(lambda: len(b"x" * (80 * 2**20)))
    assert (outcome.answer, outcome.error, outcome.signal) == (80 * 2**20, None, 0)
    assert 75 < outcome.peak < 100


def test_more_memory_than_allowed_is_an_error_in_the_child_alone() -> None:
    outcome = in_child(lambda: bytearray(400 * 2**20), memory=100)
    assert isinstance(outcome.error, MemoryError)


def test_time_is_limited() -> None:
    outcome = in_child(lambda: time.sleep(30), seconds=0.3)
    assert outcome.signal == signal.SIGALRM and outcome.seconds < 10
