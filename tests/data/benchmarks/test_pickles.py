import os
import pickle
import random
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import daptune
from daptune.data import sample_fewshot
from daptune.data.benchmarks import read_benchmark
from daptune.data.benchmarks.pickles import read_pickle
from daptune.errors import DataError

from .conftest import Small

MODULE = "dassl.data.datasets.base_dataset"


@pytest.fixture
def datum() -> Iterator[type]:
    """Dassl's class under its true name, for as long as the pickle is written."""

    class Datum:
        def __init__(self, impath: str, label: int, classname: str) -> None:
            self._impath, self._label, self._domain, self._classname = impath, label, 0, classname

    Datum.__module__, Datum.__qualname__ = MODULE, "Datum"
    names = [MODULE.rsplit(".", depth)[0] for depth in range(3, 0, -1)] + [MODULE]
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    sys.modules[MODULE].Datum = Datum  # type: ignore[attr-defined]
    yield Datum
    for name in names:
        del sys.modules[name]


def official(tmp_path: Path, datum: type, name: str, shots: int, seed: int) -> Path:
    """A few-shot pickle as the official code writes it, with the paths of another machine."""
    splits = read_benchmark(name, tmp_path)
    assert splits.val is not None
    root = splits.train.root
    assert root is not None
    state = random.getstate()
    random.seed(seed)
    parts: dict[str, list[Any]] = {}
    for part, table, count in (("train", splits.train, shots), ("val", splits.val, min(shots, 4))):
        by_label: dict[int, list[Path]] = {}
        for path, label in zip(table.images, table.labels.tolist(), strict=True):
            assert isinstance(path, Path)
            by_label.setdefault(label, []).append(path)
        parts[part] = [
            datum(f"/home/someone/DATA/{path.relative_to(tmp_path).as_posix()}", label, table.class_names[label])
            for label, members in by_label.items()
            for path in (random.sample(members, count) if len(members) >= count else members)
        ]
    random.setstate(state)
    path = root.parent / "split_fewshot" / f"shot_{shots}-seed_{seed}.pkl"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(parts, pickle.HIGHEST_PROTOCOL))
    return path


@pytest.mark.parametrize(("shots", "seed"), [(1, 1), (2, 3), (4, 2), (16, 1)])
def test_an_official_draw_is_read_and_is_the_one_made_here(
    shots: int, seed: int, small: Small, tmp_path: Path, datum: type
) -> None:
    small("eurosat")
    path = official(tmp_path, datum, "eurosat", shots, seed)
    found = read_pickle(path)
    splits = read_benchmark("eurosat", tmp_path)
    drawn = sample_fewshot(splits.train, shots, seed, val=splits.val)
    assert found.val is not None
    assert drawn.val is not None
    assert [os.fspath(image) for image in found.train.images] == [os.fspath(image) for image in drawn.train.images]
    assert found.train.labels.tolist() == drawn.train.labels.tolist()
    assert found.train.class_names == splits.train.class_names
    assert [os.fspath(image) for image in found.val.images] == [os.fspath(image) for image in drawn.val.images]
    assert daptune.read_source(path).train.images == found.train.images


def test_no_code_is_run_from_a_pickle(tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, (f"touch {mark}",)

    path = tmp_path / "shot_1-seed_1.pkl"
    path.write_bytes(pickle.dumps({"train": [Evil()]}))
    with pytest.raises(DataError, match=r"asks to run (posix|nt|os).system, which no few-shot split needs"):
        daptune.read_source(path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # the pickle does what it is thought to do
    assert mark.exists()


def test_a_pickle_cannot_call_the_class_that_it_may_name(tmp_path: Path) -> None:
    path = tmp_path / "shot_1-seed_1.pkl"
    path.write_bytes(b"(dS'train'\n(cdassl.x\nDatum\n(S'argument'\ntRls.")
    with pytest.raises(DataError, match=r"cannot be read .*TypeError"):
        read_pickle(path)


def test_images_that_are_not_here_are_told(small: Small, tmp_path: Path, datum: type) -> None:
    small("eurosat")
    path = official(tmp_path, datum, "eurosat", 1, 1)
    moved = tmp_path / "elsewhere" / "split_fewshot" / path.name
    moved.parent.mkdir(parents=True)
    path.rename(moved)
    with pytest.raises(DataError, match="put it into split_fewshot/ of the data set"):
        read_pickle(moved)
    assert len(read_pickle(moved, tmp_path / "eurosat").train) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"\x80\x05not a pickle", "cannot be read"),
        (pickle.dumps([1, 2]), "cannot be read"),
        (pickle.dumps({"train": [("a.jpg", 0, "cat")]}), "found tuple in place of a Datum"),
        (pickle.dumps({"test": []}), "found no images"),
    ],
)
def test_another_pickle_is_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "shot_1-seed_1.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_pickle(path)


def test_two_names_of_one_label_are_refused_and_one_name_of_two_is_told_apart(tmp_path: Path, datum: type) -> None:
    path = tmp_path / "imagenet" / "split_fewshot" / "shot_1-seed_1.pkl"
    path.parent.mkdir(parents=True)
    (tmp_path / "imagenet" / "a.jpg").write_bytes(b"")
    path.write_bytes(pickle.dumps({"train": [datum("a.jpg", 657, "missile"), datum("b.jpg", 744, "missile")]}))
    assert read_pickle(path).train.class_names == ("missile", "missile_")
    path.write_bytes(pickle.dumps({"train": [datum("a.jpg", 0, "cat"), datum("b.jpg", 0, "dog")]}))
    with pytest.raises(DataError, match="label 0 is named both 'cat' and 'dog'"):
        read_pickle(path)
    path.write_bytes(pickle.dumps({"train": [datum("a.jpg", 0, "cat"), datum("/etc/passwd", 1, "dog")]}))
    assert read_pickle(path).train.images[1] == tmp_path / "imagenet" / "etc" / "passwd"


def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, datum: type) -> None:
    path = tmp_path / "a" / "split_fewshot" / "shot_1-seed_1.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps({"train": [datum("/x/../../etc/passwd", 0, "cat")]}))
    with pytest.raises(DataError, match="leads out of its folder"):
        read_pickle(path)
