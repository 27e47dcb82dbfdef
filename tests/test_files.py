"""Differences of two identities in words."""

from typing import Any

import pytest

from daptune.files import difference


@pytest.mark.parametrize(
    ("saved", "now", "words"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b is 1 there and 2 now"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "a[1] is 2 there and 3 now"),
        ({"a": [1]}, {"a": [1, 3]}, "a has 1 entries there and 2 now"),
        ({}, {"new": 0.5}, "new is None there and 0.5 now"),
        ({"old": "x"}, {}, "old is 'x' there and None now"),
    ],
)
def test_differences_in_words(saved: Any, now: Any, words: str | None) -> None:
    assert difference(saved, now) == words
