"""Tasks in one table: labels count on, names that collide are told or told apart."""

from pathlib import Path

import numpy as np
import pytest

from daptune.data import ImageTable, join_tables, sample_fewshot
from daptune.errors import DataError


def table(names: list[str], labels: list[int], prefix: str) -> ImageTable:
    images = tuple(Path(prefix) / f"{row}.png" for row in range(len(labels)))
    return ImageTable(images, np.array(labels, dtype=np.int64), tuple(names), Path(prefix))


def test_labels_and_names_follow_one_another() -> None:
    pets, food = table(["cat", "dog"], [1, 0, 1], "p"), table(["pie", "egg", "jam"], [2, 0], "f")
    one = table(["x"], [0], "x")
    joined = join_tables({"pets": pets, "food": food, "letters": one})
    assert joined.tasks == (2, 3, 1) and joined.table.class_names == ("cat", "dog", "pie", "egg", "jam", "x")
    assert joined.table.images == pets.images + food.images + one.images
    assert joined.table.labels.tolist() == [1, 0, 1, 4, 2, 5] and joined.table.labels.dtype == np.int64
    named = [joined.table.class_names[label] for label in joined.table.labels]
    apart = [t.class_names[label] for t in (pets, food, one) for label in t.labels]
    assert named == apart
    assert pets.labels.tolist() == [1, 0, 1] and food.class_names == ("pie", "egg", "jam")  # the parts are untouched


def test_a_class_without_images_keeps_its_place_and_a_draw_keeps_all() -> None:
    joined = join_tables({"a": table(["cat", "dog"], [0, 0, 0], "a"), "b": table(["pie"], [0, 0], "b")})
    assert joined.table.counts().tolist() == [3, 0, 2]
    drawn = sample_fewshot(joined.table, 1, 1).train
    assert drawn.counts().tolist() == [1, 0, 1] and len(drawn.class_names) == sum(joined.tasks)


def test_names_that_two_tasks_have_are_told() -> None:
    tables = {"animals": table(["cat", "sea_cow"], [0], "a"), "zoo": table(["Sea cow", "lion", "CAT"], [1], "z")}
    with pytest.raises(DataError) as caught:
        join_tables(tables)
    assert str(caught.value) == (
        "class 'sea_cow' of animals and 'Sea cow' of zoo read the same to CLIP (and 1 more): rename one, leave one "
        "out, or use qualify=True, which adds the task to their names."
    )
    joined = join_tables(tables, qualify=True)
    assert joined.table.class_names == ("cat (animals)", "sea_cow (animals)", "Sea cow (zoo)", "lion", "CAT (zoo)")
    assert joined.tasks == (2, 3) and joined.table.labels.tolist() == [0, 3]


def test_what_cannot_be_joined_is_one_line() -> None:
    with pytest.raises(DataError, match="expected tables to join, found none"):
        join_tables({})
    cats = table(["cat"], [0], "a")
    with pytest.raises(DataError, match="make the same prompt"):
        join_tables({"Zoo": cats, "zoo": cats}, qualify=True)
    with pytest.raises(DataError, match="'cat' of a and 'cat' of b read the same to CLIP: rename"):
        join_tables({"a": cats, "b": cats})
