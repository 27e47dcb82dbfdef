"""What is to be predicted, as a stream."""

import io
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from daptune.data.folders import image_files
from daptune.data.stream import Item
from daptune.errors import DataError, MissingExtraError
from daptune.predict.inputs import Share, image_sources, items


def names(*paths: object) -> list[str]:
    return [item.name for item in items([str(path) for path in paths])]


def test_a_folder_is_walked_in_order(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/10.jpg", "a.png", "a/z.JPG", "a/x/1.webp", ".hidden/1.jpg", "a/.1.jpg", "notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [os.path.relpath(name, tmp_path) for name in names(tmp_path)]
    assert found == ["a.png", "a/z.JPG", "a/x/1.webp", "b/10.jpg", "b/2.jpg"]
    assert [item.source for item in items([str(tmp_path)])] == list(image_files(tmp_path))


def test_pictures_that_are_not_read_here_have_a_row(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.HEIC", "c.avif", "d.CR2", "e.pdf", "f.mov"):
        (tmp_path / name).write_bytes(b"")
    assert [Path(name).name for name in names(tmp_path)] == ["a.jpg", "b.HEIC", "c.avif", "d.CR2"]
    assert [path.name for path in image_sources(str(tmp_path))] == ["a.jpg", "b.HEIC", "c.avif", "d.CR2"]  # type: ignore[union-attr]


def test_lists_and_files_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.txt").write_bytes("\ufeffa.png\r\n\n ü b.png\n".encode() + b"\xff.png\n")
    found = list(items(["gone.png", str(tmp_path / "list.txt")]))
    assert [item.name for item in found] == ["gone.png", "a.png", " ü b.png", "\\xff.png"]
    assert os.fsencode(found[-1].source) == b"\xff.png"
    monkeypatch.setattr(sys, "stdin", io.StringIO("a b.png\r\n\n", newline=""))
    assert list(items(["-"])) == [("a b.png", Path("a b.png"))]
    with pytest.raises(DataError, match=r"the list gone\.txt cannot be read"):
        names("gone.txt")


def test_a_csv_starts_at_its_own_folder_and_keeps_its_names(tmp_path: Path) -> None:
    table = tmp_path / "some" / "table.csv"
    table.parent.mkdir()
    table.write_text("id;image\n1;a/1.png\n2;\n3;/there/3.png\n")
    found = list(items([str(table)]))
    assert found == [
        ("a/1.png", tmp_path / "some" / "a" / "1.png"),
        ("table.csv:2", b""),
        ("/there/3.png", Path("/there/3.png")),
    ]


def test_parquet_with_paths_or_with_the_pictures_themselves(tmp_path: Path) -> None:
    place = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"n": [1, 2], "path": ["x/1.png", None]}), place)
    assert list(items([str(place)])) == [("x/1.png", tmp_path / "x" / "1.png"), ("t.parquet:2", b"")]
    cells = [{"bytes": b"abc", "path": "cat.png"}, {"bytes": b"def", "path": None}, {"bytes": None, "path": "y.png"}]
    parquet.write_table(pyarrow.table({"image": cells}), place)
    assert list(items([str(place)])) == [("cat.png", b"abc"), ("t.parquet:2", b"def"), ("y.png", tmp_path / "y.png")]
    parquet.write_table(pyarrow.table({"image": [b"abc"]}), place)
    assert list(items([str(place)])) == [("t.parquet:1", b"abc")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "file_id,label\n1,cat\n", "expected a column for images"),
        ("t.csv", "", "is empty"),
        ("t.csv", "path\na.png,b\n", "row 1: expected 1 values"),
        ("t.parquet", "none", "cannot be read as Parquet"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        names(tmp_path / name)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(No such file or directory\); (?!save)"):
        names(tmp_path / "gone.tsv")


def test_numbers_in_place_of_images(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"image": [1]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet, row 1: expected an image as a path"):
        names(tmp_path / "t.parquet")


def test_parquet_without_pyarrow_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="needs pyarrow: pip install"):
        names(tmp_path / "t.parquet")


def test_shards_are_the_whole_and_do_not_meet() -> None:
    whole = [f"{number}.png" for number in range(10)]
    parts = [[item.name for item in items(whole, share=Share(f"{part}/3"))] for part in (1, 2, 3)]
    assert parts[0] == ["0.png", "3.png", "6.png", "9.png"]
    assert sorted(name for part in parts for name in part) == whole
    assert [item.name for item in items(whole, share=Share("1/1"))] == whole


def test_shards_count_on_over_sources_of_every_kind(tmp_path: Path) -> None:
    """The k-th share is every n-th image of all, whatever kind of source it is in, with blank lines not counted."""
    (tmp_path / "list.txt").write_text("a.png\n\n  \nb.png\r\nc.png\n")
    (tmp_path / "table.csv").write_text("path\nd.png\n\ne.png\n")
    texts, cells = [f"{number}.png" for number in range(70)], [{"bytes": b"x", "path": None}] * 67
    parquet.write_table(pyarrow.table({"path": texts}), tmp_path / "texts.parquet")
    parquet.write_table(pyarrow.table({"image": cells}), tmp_path / "cells.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("1.png", "2.jpg", "notes.doc", ".hidden.png"):
        (folder / name).touch()
    sources = ["list.txt", "table.csv", "one.png", "texts.parquet", "folder", "cells.parquet", "list.txt"]
    paths = [str(tmp_path / source) for source in sources]
    whole = [item.name for item in items(paths)]
    assert len(whole) == 3 + 2 + 1 + 70 + 2 + 67 + 3 and whole[3] == "d.png" and whole[-3:] == whole[:3]
    assert whole[-4] == "cells.parquet:67"
    for parts in (1, 2, 5, 7, 200):
        for part in range(1, min(parts, 9) + 1):
            found = [item.name for item in items(paths, share=Share(f"{part}/{parts}"))]
            assert found == whole[part - 1 :: parts]


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "-1/3", "a/b", "1/3/5", ""])
def test_a_shard_that_cannot_be(text: str) -> None:
    with pytest.raises(DataError, match="--shard must be K/N"):
        Share(text)


def test_a_long_list_is_not_held(tmp_path: Path) -> None:
    place = tmp_path / "list.txt"
    place.write_text("".join(f"pictures/of/a/camera/{number:08}.jpg\n" for number in range(40_000)))

    def peak(use: Callable[[Iterator[Item]], object]) -> int:
        tracemalloc.start()
        use(items([str(place)]))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert 2 * peak(lambda stream: sum(1 for _ in stream)) < peak(list)  # what stays is Python's table of names, 8 MB


class Column:
    """A feature of a data set; daptune knows that of images by the name of its class."""


Image = type("Image", (Column,), {})


class Rows:
    """A split as `datasets.Dataset` is one: features, rows by index."""

    def __init__(self, **columns: list[object]) -> None:
        self.columns = columns
        self.features = {name: Image() if name == "shot" else Column() for name in columns}
        self.column_names = list(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, row: int) -> dict[str, object]:
        return {name: column[row] for name, column in self.columns.items()}


def test_a_data_set_is_its_images_in_order() -> None:
    """The column is told by its feature; labels need not be there, and no row is read before it is decoded."""
    found = image_sources(Rows(path=["x", "y"], shot=[b"1", b"2"]))
    assert [source.load() for source in found] == [b"1", b"2"]  # type: ignore[union-attr]
    assert [source.load() for source in image_sources(Rows(file=["x.png"]))] == [Path("x.png")]  # type: ignore[union-attr]
    with pytest.raises(DataError, match="expected one image column in the data set, found words, number"):
        image_sources(Rows(words=["x"], number=[1]))

    class Splits(dict):
        column_names = "of each split"

    with pytest.raises(DataError, match=r"expected one split of a data set .* found Splits; choose a split"):
        image_sources(Splits(test=Rows(image=["x.png"])))


def test_hugging_faces_data_sets_keep_their_features(adapter: Path, pictures: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    from daptune.classifier import load

    classifier, files = load(adapter), sorted(map(str, pictures.rglob("*.png")))[:4]
    rows = datasets.Dataset.from_dict({"id": [4, 3, 2, 1], "shot": files}).cast_column("shot", datasets.Image())
    expected = classifier.predict(files).tolist()
    assert classifier.predict(rows).tolist() == classifier.predict(rows.with_format("torch")).tolist() == expected
    names = datasets.ClassLabel(names=classifier.classes_.tolist())
    labelled = rows.add_column("label", names.str2int(expected), feature=names)
    assert labelled.features == rows.features | {"label": names} and classifier.score(labelled) == 1
