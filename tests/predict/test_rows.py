"""Rows come in the order of the images, whatever could not be read."""

from pathlib import Path

import pytest

from daptune.data.stream import Item
from daptune.predict.rows import predict_rows

from .fakes import Fake

NAMES = ["0", "bad 1", "2", "bad 3", "bad 4", "bad 5", "6"]


def images() -> list[Item]:
    return [Item(f"row {name}", Path(name)) for name in NAMES]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_a_row_an_image_in_order(batch: int) -> None:
    groups = list(predict_rows(Fake(batch), images(), 1))
    rows = [row for group in groups for row in group]
    assert [len(group) for group in groups][:-1] == [batch] * (len(groups) - 1)
    assert [row["file"] for row in rows] == [f"row {name}" for name in NAMES]
    assert [set(row) for row in rows if "bad" in row["file"]] == [{"file", "error"}] * 4
    assert rows[1]["error"] == "bad 1: no image"
    good = [row for row in rows if "error" not in row]
    assert [set(row) for row in good] == [{"file", "label", "probability"}] * 3
    assert good[0]["label"] in Fake.classes_ and 1 / 3 <= good[0]["probability"] <= 1


def test_several_classes_the_likeliest_first() -> None:
    rows = [row for group in predict_rows(Fake(), images(), 9) for row in group if "top" in row]
    for row in rows:
        values = [item["probability"] for item in row["top"]]
        assert values == sorted(values, reverse=True) and len(values) == 3 and abs(sum(values) - 1) < 1e-5
        assert row["top"][0] == {"label": row["label"], "probability": row["probability"]}


def test_images_are_asked_for_as_they_are_needed() -> None:
    taken: list[int] = []

    def stream():
        for number in range(100):
            taken.append(number)
            yield Item(str(number), Path(str(number)))

    next(predict_rows(Fake(4), stream(), 1))
    assert len(taken) == 4
