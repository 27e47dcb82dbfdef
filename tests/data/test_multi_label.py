"""Images with any number of labels: read, drawn and divided."""

import csv
import json
import logging
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daptune.data.fewshot import can_be_held, sample_fewshot, split_holdout, stratified_folds
from daptune.data.join import join_tables
from daptune.data.multi_label import cell_text, draw_rows, names_in
from daptune.data.sampling import Sampler
from daptune.data.sources import read_source, table_from_lists
from daptune.data.table import ImageTable
from daptune.errors import DataError

from ..conftest import save_picture
from .test_sources import ClassLabel, Rows, pictures

ROWS = [
    ("0.png", "cat|dog", "train"), ("1.png", "dog", "train"), ("2.png", "", "train"),
    ("3.png", " bird | cat ", "train"), ("4.png", "cat", "train"), ("5.png", "bird|dog", "test"), ("6.png", "", "test"),
]  # fmt: skip


def made(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    for place, (name, _, _) in enumerate(rows):
        save_picture(folder / name, (20 * place, 90, 120), place)
    with open(folder / "t.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder / "t.csv"


def shown(table: ImageTable) -> list[list[int]]:
    return table.labels.astype(int).tolist()


def test_cells() -> None:
    assert names_in(" a| b|a||") == ["a", "b"] and names_in("") == []
    assert [cell_text(cell) for cell in (None, float("nan"), "a|b", ["a", 3], 7)] == ["", "", "a|b", "a|3", "7"]


def test_a_table_becomes_an_indicator_matrix(tmp_path: Path) -> None:
    splits = read_source(made(tmp_path, ROWS), multi_label=True)
    assert splits.train.class_names == ("bird", "cat", "dog") and splits.test is not None
    assert shown(splits.train) == [[0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert shown(splits.test) == [[1, 0, 1], [0, 0, 0]]
    assert splits.train.counts().tolist() == [1, 3, 2] and splits.train.spread() == [1, 3]
    assert [splits.train.label_text(row) for row in range(5)] == ["cat|dog", "dog", "", "bird|cat", "cat"]
    known = read_source(tmp_path / "t.csv", multi_label=True, label_names=["dog", "Cat", "bird", "fish"])
    assert shown(known.train)[0] == [1, 1, 0, 0] and known.train.class_names == ("dog", "Cat", "bird", "fish")


def test_parquet_holds_texts_or_lists(tmp_path: Path) -> None:
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    made(tmp_path, ROWS)
    paths = [name for name, _, _ in ROWS]
    for labels in ([label for _, label, _ in ROWS], [names_in(label) for _, label, _ in ROWS]):
        pandas.DataFrame({"path": paths, "label": labels}).to_parquet(tmp_path / "t.parquet")
        found = read_source(tmp_path / "t.parquet", multi_label=True).train
        assert found.counts().tolist() == [2, 3, 3] and int((~found.labels.any(axis=1)).sum()) == 2


def test_a_split_file_and_a_folder(tmp_path: Path) -> None:
    made(tmp_path, ROWS)
    rows = [[name, place, label] for place, (name, label, _) in enumerate(ROWS)]
    (tmp_path / "split.json").write_text(json.dumps({"train": rows}))
    assert read_source(tmp_path / "split.json", multi_label=True).train.counts().tolist() == [2, 3, 3]
    for name in ("a", "b", "b "):
        save_picture(tmp_path / "folder" / name.strip() / f"{len(name)}.png", (1, 2, 3), 0)
    assert shown(read_source(tmp_path / "folder", multi_label=True).train) == [[1, 0], [0, 1], [0, 1]]


def test_lists_and_matrices(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    found = table_from_lists(paths, [["b", "a"], [], ["b"]], multi_label=True)
    assert found.class_names == ("a", "b") and shown(found) == [[1, 1], [0, 0], [0, 1]]
    matrix = np.array([[1, 0], [0, 0], [1, 1]])
    found = table_from_lists(paths, matrix, multi_label=True)
    assert found.class_names == ("0", "1") and shown(found) == matrix.tolist()
    for labels, fault in (
        (matrix + 1, "expected 0 and 1"),
        ([[], [], []], "expected labels, found none in 3 images"),
        ([["a|b"], ["c"], []], "holds '|', which separates labels"),
    ):
        with pytest.raises(DataError, match=fault.replace("|", r"\|")):
            table_from_lists(paths, labels, multi_label=True)
    with pytest.raises(DataError, match="is labelled both"):
        table_from_lists([paths[0], paths[0]], [["a"], ["b"]], multi_label=True)
    with pytest.raises(DataError, match="a column for each of 3 classes, found 2"):
        table_from_lists(paths, matrix, multi_label=True, label_names=["x", "y", "z"])


def test_classes_without_training_images_are_refused(tmp_path: Path) -> None:
    path = made(tmp_path, [*ROWS, ("7.png", "cat|fish", "test")])
    with pytest.raises(DataError, match="the class 'fish' has no training images"):
        read_source(path, multi_label=True)
    with pytest.raises(DataError, match="'fish' is not among the 3 classes"):
        read_source(path, multi_label=True, label_names=["bird", "cat", "dog"])


def test_without_multi_label_one_line_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found a blank; .* or type --multi-label for images without a label"):
        read_source(made(tmp_path, ROWS))
    with pytest.raises(DataError, match=r"several labels: 3, with one: 2\. Type --multi-label .* write another sign"):
        read_source(made(tmp_path, [row for row in ROWS if row[1]]))


class List:
    """A column of lists, as `datasets.List` and `datasets.Sequence` describe it."""

    def __init__(self, feature: object) -> None:
        self.feature = feature


ANIMALS = ClassLabel("dog", "cat", "bird", "fish")  # not sorted, and no image shows the last
LISTS = [[1, 0], [0], [], [2, 1], [1]]
SHOWN = [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize("feature", [List(ANIMALS), [ANIMALS]])
@pytest.mark.parametrize("name", ["labels", "label", "what"])
def test_a_data_set_with_a_column_of_lists(feature: object, name: str) -> None:
    rows = Rows({"image": object(), name: feature}, **{"image": pictures(5), name: LISTS})
    table = read_source(rows, multi_label=True).train
    assert rows.decoded == 0 and table.class_names == tuple(ANIMALS.names) and shown(table) == SHOWN
    known = read_source(rows, multi_label=True, label_names=["Bird", "dog", "cat"]).train
    assert shown(known) == [[0, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1]]
    with pytest.raises(
        DataError, match=r"data set: expected one label .* several labels: 2, with one: 2, with none: 1\."
    ):
        read_source(rows)
    with pytest.raises(DataError, match="'cat' is not among the 3 classes"):
        read_source(rows, multi_label=True, label_names=["bird", "dog", "fish"])


def test_a_data_set_with_both_kinds_of_columns() -> None:
    features = {"image": object(), "main": ANIMALS, "every": List(ANIMALS)}
    rows = Rows(features, image=pictures(5), main=[1, 0, 3, 2, 1], every=LISTS)
    assert read_source(rows).train.labels.tolist() == [1, 0, 3, 2, 1]
    assert shown(read_source(rows, multi_label=True).train) == SHOWN
    rows.features = {"image": object(), "main": ANIMALS, "every": object()}
    assert shown(read_source(rows, multi_label=True).train) == [
        [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0],
    ]  # fmt: skip
    two = {"fine": List(ANIMALS), "coarse": List(ClassLabel("a", "b"))}
    with pytest.raises(DataError, match="one label column in the data set, found image, fine, coarse; rename"):
        read_source(Rows(two, image=pictures(5), fine=LISTS, coarse=[[0]] * 5), multi_label=True)


def test_a_data_set_with_lists_of_words_or_integers(caplog: pytest.LogCaptureFixture) -> None:
    words: list[object] = [["dog", "cat"], "dog", None, "bird|cat", []]
    with pytest.raises(DataError, match="several labels: 1, with one: 2, with none: 2"):
        read_source(Rows({}, image=pictures(5), label=words))
    splits = {"train": Rows({}, image=pictures(5), labels=words), "test": Rows({}, image=pictures(1), labels=[["cat"]])}
    found = read_source(splits, multi_label=True)
    assert found.train.class_names == ("bird", "cat", "dog") and found.test is not None
    assert shown(found.train) == [[0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert shown(found.test) == [[0, 1, 0]]
    numbers = Rows({}, image=pictures(3), label=[np.array([10, 9]), np.array([], int), np.array([9])])
    table = read_source(numbers, multi_label=True).train
    assert table.class_names == ("9", "10") and shown(table) == [[1, 1], [0, 0], [1, 0]]
    with pytest.raises(DataError, match="the class 'fish' has no training images"):
        read_source(splits | {"val": Rows({}, image=pictures(1), label=[["fish"]])}, multi_label=True)
    with pytest.raises(DataError, match=r"with one: 1, with none: 1.*--multi-label"):
        read_source(numbers)
    empty = {"train": splits["train"], "test": Rows({}, image=pictures(2), label=[[], [-1]])}
    assert read_source(empty, multi_label=True).test is None and "the test split of the data set has" in caplog.text
    with pytest.raises(DataError, match="has no labels"):
        read_source(empty["test"], multi_label=True)
    unknown = Rows({"label": List(ANIMALS)}, image=pictures(2), label=[[0], [7]])
    with pytest.raises(DataError, match=r"the data set, train: expected integers 0 to 3 .* found 7"):
        read_source(unknown, multi_label=True)


def test_lists_are_refused_where_an_image_has_one_label(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    with pytest.raises(DataError, match=r"several labels: 1, with one: 1, with none: 1.*--multi-label"):
        table_from_lists(paths, [["b", "a"], [], ["b"]])
    with pytest.raises(DataError, match="the images of b have several labels"):
        join_tables({"a": replace(table_of([[1, 0]]), labels=np.array([0])), "b": table_of([[1, 0]])})


def table_of(rows: list[list[int]]) -> ImageTable:
    names = tuple(f"c{place}" for place in range(len(rows[0])))
    return ImageTable(tuple(Path(f"{n}.png") for n in range(len(rows))), np.array(rows, dtype=bool), names)


def unbalanced(images: int, seed: int) -> ImageTable:
    chances = np.array([0.6, 0.3, 0.15, 0.05])
    return table_of((np.random.default_rng(seed).random((images, 4)) < chances).astype(int).tolist())


@pytest.mark.parametrize("shots", [1, 4, 16])
def test_every_class_has_its_shots_where_there_are_as_many(shots: int, caplog: pytest.LogCaptureFixture) -> None:
    table = unbalanced(200, seed=3)
    with caplog.at_level(logging.WARNING, "daptune"):
        drawn = sample_fewshot(table, shots, 5, val=table)
    wanted = np.minimum(table.counts(), shots)
    none = min(shots, int((~table.labels.any(axis=1)).sum()))
    assert (drawn.train.counts() >= wanted).all() and (~drawn.train.labels.any(axis=1)).sum() == none
    assert len(drawn.train) <= wanted.sum() + none and len(set(drawn.train_indices)) == len(drawn.train)
    assert drawn.val is not None and (drawn.val.counts() >= np.minimum(wanted, 4)).all()
    assert any("fewer than" in line for line in caplog.messages) == bool((table.counts() < shots).any())
    again, other = (sample_fewshot(table, shots, seed).train_indices.tolist() for seed in (5, 6))
    assert again == drawn.train_indices.tolist() != other


def test_a_draw_leaves_what_is_to_be_kept() -> None:
    table = table_of([[1, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    for seed in range(20):
        rows = draw_rows(table, [2, 1, 1], [1, 1, 0], random.Random(seed))
        left = table.subset(np.setdiff1d(np.arange(5), rows))
        assert (left.counts() >= 1).all() and 4 in rows


def test_the_hold_out_has_its_share_of_every_class() -> None:
    table = unbalanced(300, seed=4)
    rest, held = split_holdout(table, 0.2, seed=1)
    assert held is not None and len(rest) + len(held) == 300
    counts = table.counts()
    assert (held.counts() >= np.round(0.2 * counts)).all() and (held.counts() <= np.round(0.2 * counts) + 2).all()
    small = table_of([[1, 0]] * 10 + [[1, 1]] * 4)  # c1 has fewer than five images: all stay for training
    rest, held = split_holdout(small, 0.5, seed=1)
    assert held is not None and held.counts()[1] == 0 and rest.counts()[1] == 4


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_hold_every_image_out_once_and_share_the_classes(folds: int) -> None:
    table = unbalanced(120, seed=folds)
    parts = stratified_folds(table, folds, seed=1)
    assert sorted(row for _, held in parts for row in held) == list(range(120)) and len(parts) == folds
    for train, held in parts:
        assert sorted([*train, *held]) == list(range(120))
        counts, share = table.subset(held).counts(), table.counts() / folds
        assert (counts >= np.floor(share) - 2).all() and (counts <= np.ceil(share) + 3).all()
        assert (~table.labels[held].any(axis=1)).sum() >= (~table.labels.any(axis=1)).sum() // folds
    again, other = ([held.tolist() for _, held in stratified_folds(table, folds, seed)] for seed in (1, 2))
    assert again == [held.tolist() for _, held in parts] != other


def test_folds_leave_every_class_an_image_to_train_on() -> None:
    rng = np.random.default_rng(0)
    for seed in range(30):
        table = table_of((rng.random((9, 5)) < 0.3).astype(int).tolist())
        there = table.counts() > 0
        for train, held in stratified_folds(table, 4, seed):
            assert (table.subset(train).counts()[there] > 0).all() and len(held)
            assert can_be_held(table)[held].all()
    table = table_of([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]])  # the last class is alone on an image
    assert can_be_held(table).tolist() == [True, True, True, False, True]


def test_epochs_draw_at_most_all_images() -> None:
    labels = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=bool)
    assert len(Sampler.of(labels, "shuffled", None, 1)) == 4 and len(Sampler.of(labels, "shuffled", 1, 1)) == 3
    with pytest.raises(DataError, match="'balanced' draws by class"):
        Sampler.of(labels, "balanced", None, 1)


def test_the_fingerprint_knows_every_label() -> None:
    one, two, same = (table_of(rows) for rows in ([[1, 0]], [[1, 1]], [[1, 0]]))
    assert one.fingerprint() == same.fingerprint() != two.fingerprint()
