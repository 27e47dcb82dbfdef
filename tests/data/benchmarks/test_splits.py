import random

import pytest

from daptune.data.benchmarks.splits import split_thirds, split_trainval
from daptune.errors import DataError


@pytest.mark.parametrize("count", [4, 5, 7, 10, 31])
def test_thirds_are_half_a_fifth_and_the_rest_of_every_class(count: int) -> None:
    groups = {(label, name): [f"{name}/{n}" for n in range(count)] for label, name in enumerate("abc")}
    parts = split_thirds(groups)
    for label in range(3):
        sizes = [sum(row[1] == label for row in parts[part]) for part in ("train", "val", "test")]
        assert sizes == [round(count * 0.5), round(count * 0.2), count - round(count * 0.5) - round(count * 0.2)]
    images = sorted(image for rows in parts.values() for image, _, _ in rows)
    assert images == sorted(image for members in groups.values() for image in members)


def test_the_draw_is_that_of_the_seeded_global_generator() -> None:
    state = random.getstate()
    random.seed(1)
    first, second = [list(range(10)), list(range(10))]
    random.shuffle(first)
    random.shuffle(second)
    random.setstate(state)
    groups = {(0, "a"): [f"a{n}" for n in range(10)], (1, "b"): [f"b{n}" for n in range(10)]}
    parts = split_thirds(groups)
    assert [row[0] for row in parts["train"]] == [f"a{n}" for n in first[:5]] + [f"b{n}" for n in second[:5]]
    assert [row[0] for row in parts["val"]] == [f"a{n}" for n in first[5:7]] + [f"b{n}" for n in second[5:7]]
    assert [row[0] for row in parts["test"]] == [f"a{n}" for n in first[7:]] + [f"b{n}" for n in second[7:]]


def test_a_class_too_small_to_split_is_named() -> None:
    with pytest.raises(DataError, match="class 'a' has 2 images, too few"):
        split_thirds({(0, "a"): ["1", "2"]})
    with pytest.raises(DataError, match="class 'b' has 2 images, too few for train and val"):
        split_trainval([("1", 0, "b"), ("2", 0, "b")])
