"""The draw is CoOp's: checked against the rule written anew on the global generator, and a committed hash."""

import hashlib
import json
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from daptune.data import ImageTable, read_source, sample_fewshot, split_holdout
from daptune.data.fewshot import stratified_folds
from daptune.errors import DataError


def table_of(labels: list[int], prefix: str = "") -> ImageTable:
    images = tuple(Path(f"{prefix}{i}.png") for i in range(len(labels)))
    names = tuple(f"class {c}" for c in range(max(labels) + 1))
    return ImageTable(images, np.array(labels, dtype=np.int64), names)


def official(train: list[int], val: list[int], shots: int, seed: int) -> tuple[list[int], list[int]]:
    """What Dassl's and CoOp's code does with its lists of Datum, here of (row, label)."""
    random.seed(seed)
    drawn = []
    for labels, most in ((train, shots), (val, min(shots, 4))):
        by_label: dict[int, list[tuple[int, int]]] = {}
        for item in enumerate(labels):
            by_label.setdefault(item[1], []).append(item)
        rows = []
        for items in by_label.values():
            rows.extend(random.sample(items, most) if len(items) >= most else items)
        drawn.append([row for row, _ in rows])
    return drawn[0], drawn[1]


def zhou_split() -> dict[str, list[tuple[str, int, str]]]:
    """A made-up split: 12 classes in no order, of 3 to 25 images, from a linear congruential generator."""
    state, parts = 7, {}
    for part, most in (("train", 25), ("val", 9), ("test", 5)):
        rows = []
        for label in range(12):
            state = (state * 1103515245 + 12345) % 2**31
            for i in range(3 + (state >> 16) % (most - 2)):
                state = (state * 1103515245 + 12345) % 2**31
                rows.append((state, (f"c{label}/{part}_{i}.png", label, f"class_{label}")))
        parts[part] = [row for _, row in sorted(rows)]
    return parts


labels_lists = st.lists(st.integers(0, 5), min_size=1, max_size=80)


@settings(deadline=None)  # the machine may be busy
@given(labels_lists, labels_lists, st.integers(1, 16), st.integers(0, 2**32))
def test_draws_are_those_of_the_official_code(train, val, shots, seed):
    few = sample_fewshot(table_of(train), shots, seed, val=table_of(val))
    assert (few.train_indices.tolist(), few.val_indices.tolist()) == official(train, val, shots, seed)
    assert [path.name for path in few.train.images] == [f"{i}.png" for i in few.train_indices]
    assert np.array_equal(few.train.labels, np.array(train)[few.train_indices])


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_draws_from_a_split_file_are_the_official_ones(tmp_path, shots, seed):
    parts = zhou_split()
    (tmp_path / "split_zhou_Made.json").write_text(json.dumps(parts))
    first = tmp_path / "images" / parts["train"][0][0]
    first.parent.mkdir(parents=True)
    first.touch()
    splits = read_source(tmp_path)
    few = sample_fewshot(splits.train, shots, seed, val=splits.val)
    train, val = official([r[1] for r in parts["train"]], [r[1] for r in parts["val"]], shots, seed)
    expected = [parts["train"][i][0] for i in train], [parts["val"][i][0] for i in val]
    root = tmp_path / "images"
    found = [[path.relative_to(root).as_posix() for path in part.images] for part in (few.train, few.val)]
    assert found == list(expected)


def test_draws_never_change():
    """The hash is that of the official `generate_fewshot_dataset` itself, run on this split."""
    parts = zhou_split()
    digest = hashlib.sha256()
    for shots in (1, 2, 4, 8, 16):
        for seed in (1, 2, 3):
            tables = [table_of([row[1] for row in parts[part]]) for part in ("train", "val")]
            few = sample_fewshot(tables[0], shots, seed, val=tables[1])
            digest.update(json.dumps([few.train_indices.tolist(), few.val_indices.tolist()]).encode())
    assert digest.hexdigest() == "60bbfc5a3d2c776d254cee881b7e89830fed022c37f3c695ff04190efec61491"


def test_seeds_of_numpy_are_seeds():
    table = table_of([0] * 30)
    draws = [sample_fewshot(table, 4, seed).train_indices.tolist() for seed in (3, np.int64(3))]
    assert draws[0] == draws[1]


def test_the_global_generator_is_left_alone():
    random.seed(5)
    before = random.getstate()
    sample_fewshot(table_of([0, 1] * 20), 4, 1)
    assert random.getstate() == before


@pytest.mark.parametrize("shots", [None, "all", 0, -1])
def test_no_shots_is_everything(shots):
    table = table_of([0, 1, 1])
    val = table_of([1, 0])
    few = sample_fewshot(table, shots, 1, val=val)
    assert few.train is table and few.val is val
    assert (few.train_indices.tolist(), few.val_indices.tolist()) == ([0, 1, 2], [0, 1])
    few = sample_fewshot(table, shots, 1)
    assert few.train is table and few.val is None and few.val_indices is None


def test_a_small_class_gives_all_and_says_so(caplog):
    few = sample_fewshot(table_of([0, 0, 0, 1]), 2, 1)
    assert few.train.counts().tolist() == [2, 1] and few.val is None
    assert caplog.messages == ["fewer than 2 images, all used: class 1 (1)"]


@pytest.mark.parametrize(("small", "more"), [(5, ""), (6, " and 1 more"), (8, " and 3 more")])
def test_of_many_small_classes_five_are_listed(small, more, caplog):
    """Classes of 1 or 2 images; the last has as many as are asked for, and is none of them."""
    labels = [label for label in range(small) for _ in range(1 + label % 2)]
    sample_fewshot(table_of([*labels, small, small, small]), 3, 1)
    listed = ", ".join(f"class {label} ({1 + label % 2})" for label in range(5))
    assert caplog.messages == [f"fewer than 3 images, all used: {listed}{more}"]


def test_of_no_images_none_are_drawn():
    table = table_of([0, 1, 1])
    few = sample_fewshot(table, 1, 1, val=table.subset([]))
    assert len(few.val) == 0 and few.val_indices.tolist() == [] and few.val_indices.dtype == np.int64


def test_shots_in_words_is_refused():
    with pytest.raises(DataError, match="whole number or 'all', found 'many'"):
        sample_fewshot(table_of([0, 1]), "many", 1)


@settings(deadline=None)  # the machine may be busy
@given(labels_lists, st.floats(0.01, 0.99), st.integers(0, 99))
def test_holdout_takes_its_part_of_each_class(labels, fraction, seed):
    table = table_of(labels)
    rest, held = split_holdout(table, fraction, seed)
    for label, count in enumerate(table.counts()):
        taken = 0 if held is None else int((held.labels == label).sum())
        expected = min(max(round(count * fraction), 1), count - 1) if count >= 5 else 0
        assert taken == expected
    together = [*rest.images, *(held.images if held else ())]
    assert sorted(together) == sorted(table.images)
    assert list(rest.images) == [image for image in table.images if image in set(rest.images)]


@pytest.mark.parametrize(
    ("fraction", "taken"),
    [
        (0.001, [0, 1, 1, 1, 1]),  # at least 1
        (0.2, [0, 1, 1, 2, 8]),
        (0.5, [0, 2, 3, 5, 20]),
        (0.95, [0, 4, 5, 9, 38]),  # at most all but one: 5 x 0.95 is nearly 5
        (0.999, [0, 4, 5, 9, 39]),
    ],
)
def test_holdout_by_hand(fraction, taken):
    """Classes of 4, 5, 6, 10 and 40 images, in mixed order."""
    counts = [4, 5, 6, 10, 40]
    table = table_of([label for turn in range(40) for label in (4, 1, 0, 3, 2) if turn < counts[label]])
    rest, held = split_holdout(table, fraction, 3)
    assert held.counts().tolist() == taken
    assert rest.counts().tolist() == [count - part for count, part in zip(counts, taken, strict=True)]
    assert sorted([*rest.images, *held.images]) == sorted(table.images)


def test_holdout_of_small_classes_is_nothing():
    table = table_of([0] * 4 + [1] * 3)
    assert split_holdout(table, 0.5, 1) == (table, None)
    rest, held = split_holdout(table_of([0] * 4 + [1] * 5), seed=1)
    assert held.labels.tolist() == [1] and len(rest) == 8  # a fifth, unless another part is asked for


def test_holdout_is_a_function_of_the_seed():
    table = table_of([0, 1] * 30)
    one, again, other, zero = (split_holdout(table, 0.2, seed)[1] for seed in (1, 1, 2, 0))
    assert one.images == again.images != other.images
    assert split_holdout(table)[1].images == zero.images != one.images
    assert one.counts().tolist() == [6, 6]


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2])
def test_holdout_refuses_a_fraction_that_is_none(fraction):
    with pytest.raises(DataError, match="fraction between 0 and 1"):
        split_holdout(table_of([0, 1]), fraction, 1)


def test_folds_hold_each_image_out_once_and_never_one_alone_in_its_class():
    """7, 1, 4 and 2 images in mixed order: in five folds, at most 2, 0, 1 and 1 of each class are held out."""
    labels = [0, 2, 0, 3, 0, 0, 2, 1, 0, 2, 3, 0, 2, 0]
    alone = labels.index(1)
    folds = stratified_folds(table_of(labels), 5, 3)
    assert sorted(row for _, held in folds for row in held) == [row for row in range(14) if row != alone]
    for train, held in folds:
        assert sorted([*train, *held]) == list(range(14))
        counts = [sum(labels[row] == label for row in held) for label in range(4)]
        assert all(count <= most for count, most in zip(counts, (2, 0, 1, 1), strict=True))


@pytest.mark.parametrize(("folds", "seed"), [(3, 0), (3, 1), (5, 0)])
@pytest.mark.filterwarnings("ignore:The least populated class")  # of the oracle: the code itself must not warn
def test_folds_are_scikit_learns_of_the_seed(folds, seed):
    labels = np.random.default_rng(2).permutation([0] * 11 + [1] * 2 + [2] * 6 + [3])
    kept = [row for row in range(20) if labels[row] != 3]
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    expected = [[kept[place] for place in held] for _, held in splitter.split(kept, labels[kept])]
    assert [held.tolist() for _, held in stratified_folds(table_of(labels.tolist()), folds, seed)] == expected


def test_folds_of_small_classes_are_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(stratified_folds(table_of([0, 1, 0, 0, 1, 0, 0]), 4, 1)) == 4
