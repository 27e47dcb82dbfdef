"""Pictures that contradict their class: one in a wrong class, two classes exchanged, and what must not be doubted."""

import numpy as np

from daptune.methods.ensemble import Seen
from daptune.serve.contradictions import contradicting

COUNTS = [5, 4, 7]
RIGHT = np.repeat(np.arange(3), COUNTS)


def seen(shown: np.ndarray, labels: np.ndarray, *, text: float = 1.0, noise: float = 0.1) -> tuple[Seen, np.ndarray]:
    """Pictures of the classes `shown` along the first axes with noise; class names that mean them, or others (-1)."""
    rng = np.random.default_rng(3)
    z = np.eye(6)[shown] + noise * rng.normal(size=(len(shown), 6))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    w0 = np.eye(6)[:3] if text > 0 else np.eye(6)[3:]
    return Seen(z, 20 * z @ w0.T, labels), w0


def found(shown: np.ndarray, labels: np.ndarray, readable: tuple[bool, ...] = (True,) * 3, **options: float) -> list:
    rows = contradicting(*seen(shown, labels, **options), np.array(readable))
    return [(each.given, each.like, each.rows.tolist()) for each in rows]


def test_a_picture_of_another_class_is_found() -> None:
    shown = RIGHT.copy()
    shown[[2, 6]] = [2, 0]  # labelled 0 and 1
    assert found(shown, RIGHT) == [(0, 2, [2]), (1, 0, [6])]
    assert found(RIGHT, RIGHT) == []


def test_two_classes_with_each_others_pictures_are_found_by_their_names_alone() -> None:
    shown = np.choose(RIGHT, [1, 0, 2])
    assert found(shown, RIGHT) == [(0, 1, [0, 1, 2, 3, 4]), (1, 0, [5, 6, 7, 8])]
    assert found(shown, RIGHT, (True, False, True)) == [], "a name that CLIP cannot read says nothing"
    assert found(shown, RIGHT, text=-1.0) == [], "names of other things say nothing"


def test_of_single_pictures_nothing_is_said() -> None:
    assert found(np.array([1, 0, 2]), np.array([0, 1, 2])) == []
    assert found(np.array([1, 1, 0, 2, 2]), np.array([0, 0, 1, 2, 2])) == [], "one picture of a pair of classes"
