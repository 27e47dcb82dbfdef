"""Every form of source gives the same tables, and every mistake in one gives one clear line."""

import csv
import hashlib
import json
import logging
import os
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from daptune.data import DatasetItem, ImageTable, decode, read_source
from daptune.data.sources import labelled
from daptune.errors import DataError, MissingExtraError

PNG = b"\x89PNG\r\n\x1a\n"  # enough where nothing is decoded


def lay(root: Path, *files: str) -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    return root


def names(table: ImageTable) -> list[tuple[str, str]]:
    """(path below root, class name) of each image."""
    rows = zip(table.images, table.labels, strict=True)
    return [(path.relative_to(table.root).as_posix(), table.class_names[label]) for path, label in rows]


def refuse(source, words: str, **options) -> str:
    with pytest.raises(DataError, match=words) as caught:
        read_source(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestFolder:
    def test_classes_are_sub_folders_in_sorted_order(self, tmp_path):
        lay(tmp_path, "dog/2.JPG", "dog/1.jpeg", "hot_dog/a.webp", "Cat/deep/er/x.png", "Cat/y.gif")
        table = read_source(tmp_path).train
        assert table.class_names == ("Cat", "dog", "hot_dog")
        assert names(table) == [
            ("Cat/y.gif", "Cat"), ("Cat/deep/er/x.png", "Cat"), ("dog/1.jpeg", "dog"), ("dog/2.JPG", "dog"),
            ("hot_dog/a.webp", "hot_dog"),
        ]  # fmt: skip
        assert table.labels.dtype == np.int64 and table.counts().tolist() == [2, 2, 1]

    def test_a_string_will_do_and_so_will_what_was_read(self, tmp_path):
        splits = read_source(str(lay(tmp_path, "a/1.png", "b/1.png")))
        assert len(splits.train) == 2
        assert read_source(splits) is splits and read_source(splits.train).train is splits.train

    @pytest.mark.parametrize("val", ["val", "valid", "validation", "eval", "Val"])
    def test_splits_below(self, tmp_path, val):
        lay(tmp_path, "train/a/1.png", "train/b/1.png", f"{val}/a/2.png", "test/b/3.png", "test/a/4.png")
        splits = read_source(tmp_path)
        assert names(splits.train) == [("a/1.png", "a"), ("b/1.png", "b")]
        assert names(splits.val) == [("a/2.png", "a")]
        assert names(splits.test) == [("a/4.png", "a"), ("b/3.png", "b")]
        assert splits.test.class_names == splits.train.class_names

    def test_train_can_be_a_class(self, tmp_path):
        lay(tmp_path, "train/1.png", "car/1.png", "plane/1.png")
        assert read_source(tmp_path).train.class_names == ("car", "plane", "train")

    def test_a_class_beside_train_is_ambiguous(self, tmp_path):
        lay(tmp_path, "train/a/1.png", "train/b/1.png", "car/1.png")
        refuse(tmp_path, "car/ stands beside it like a class; give .*train itself")

    def test_other_folders_beside_splits_are_no_classes(self, tmp_path):
        lay(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png", "masks/1.png")
        assert read_source(tmp_path).train.class_names == ("a", "b")

    def test_clutter_is_skipped_and_other_files_are_reported(self, tmp_path):
        lay(tmp_path, "a/1.png", "b/1.png", ".git/x.png", "a/.hidden.png", "a/Thumbs.db", "__MACOSX/a/1.png")
        lay(tmp_path, "a/notes.txt", "readme.md", "b/.DS_Store", "top.png")
        splits = read_source(tmp_path)
        assert names(splits.train) == [("a/1.png", "a"), ("b/1.png", "b")]
        assert sorted(path.name for path in splits.ignored) == ["notes.txt", "readme.md", "top.png"]

    def test_files_without_a_suffix_are_judged_by_their_first_bytes(self, tmp_path):
        lay(tmp_path, "a/image", "a/photo.001", "b/1.png")
        (tmp_path / "a" / "LICENSE").write_text("no image")
        splits = read_source(tmp_path)
        assert [path for path, _ in names(splits.train)] == ["a/image", "a/photo.001", "b/1.png"]
        assert [path.name for path in splits.ignored] == ["LICENSE"]

    def test_link_loops_end(self, tmp_path):
        data = lay(tmp_path / "data", "a/1.png", "a/in/2.png", "b/1.png")
        (data / "a" / "in" / "up").symlink_to(data / "a", target_is_directory=True)
        (data / "a" / "top").symlink_to(data, target_is_directory=True)
        (data / "a" / "root").symlink_to(tmp_path, target_is_directory=True)
        (data / "a" / "self").symlink_to(data / "a" / "self")
        assert [path for path, _ in names(read_source(data).train)] == ["a/1.png", "a/in/2.png", "b/1.png"]

    def test_linked_class_folders_and_files_are_read(self, tmp_path):
        lay(tmp_path, "store/x/1.png", "store/y/1.png")
        data = tmp_path / "data"
        data.mkdir()
        for name in "xy":
            (data / name).symlink_to(tmp_path / "store" / name, target_is_directory=True)
        (data / "x" / "2.png").symlink_to(tmp_path / "store" / "y" / "1.png")
        assert read_source(data).train.counts().tolist() == [2, 1]
        (data / "z").symlink_to(tmp_path / "store" / "y", target_is_directory=True)
        refuse(data, "y/ and z/ are links to one folder")

    def test_names_of_any_script_stay_as_they_are(self, tmp_path):
        found = ["Ёлка", "ねこ", "قط", "a-b c", "é"]
        lay(tmp_path, *(f"{name}/1.png" for name in found))
        assert sorted(read_source(tmp_path).train.class_names) == sorted(found)

    def test_label_names_fix_the_class_list(self, tmp_path):
        lay(tmp_path, "hot_dog/1.png", "cat/1.png")
        table = read_source(tmp_path, label_names=["zebra", "hot dog", "cat"]).train
        assert table.class_names == ("zebra", "hot dog", "cat") and table.labels.tolist() == [2, 1]
        refuse(
            tmp_path,
            "'hot_dog' is not among the 2 classes. Did you mean 'hot dogs'",
            label_names=["hot dogs", "cat"],
        )

    def test_one_known_class_alone_may_be_evaluated(self, tmp_path):
        assert len(read_source(lay(tmp_path, "cat/1.png"), label_names=["cat", "dog"]).train) == 1

    @pytest.mark.parametrize("pair", [("hot_dog", "hot dog"), ("Cat", "cat"), ("é", unicodedata.normalize("NFD", "é"))])
    def test_colliding_names_are_both_named(self, tmp_path, pair):
        message = refuse(lay(tmp_path, *(f"{name}/1.png" for name in pair)), "make the same prompt")
        assert repr(pair[0]) in message and repr(pair[1]) in message

    def test_names_that_lower_case_apart_are_two(self, tmp_path):
        assert len(read_source(lay(tmp_path, "Straße/1.png", "Strasse/1.png")).train.class_names) == 2

    def test_bad_folders(self, tmp_path):
        refuse(tmp_path / "none", "no folder or file at .*none; give a folder with one sub-folder")
        refuse(tmp_path, "expected one sub-folder of images a class .*; found nothing to read")
        lay(tmp_path, "1.png", "2.png")
        refuse(tmp_path, "found images but no sub-folders")
        (tmp_path / "cat").mkdir()
        refuse(tmp_path, "found no JPEG, PNG, .* files in its sub-folders")
        lay(tmp_path, "cat/1.png")
        refuse(tmp_path, "two class folders or more, found only cat/")
        (tmp_path / "dog").mkdir()
        refuse(tmp_path, "no JPEG, .* files in dog; add some or remove it")

    def test_a_folder_within_a_folder_is_suggested(self, tmp_path):
        lay(tmp_path, "unzipped/cat/1.png", "unzipped/dog/1.png")
        refuse(tmp_path, r"found only unzipped/. Did you mean .*unzipped\?")

    def test_bad_splits(self, tmp_path):
        lay(tmp_path, "test/a/1.png", "test/b/1.png")
        refuse(tmp_path, "expected images to learn from, found test images alone; add a train split, or .*test itself")
        lay(tmp_path, "train/a/1.png", "train/c/1.png")
        refuse(tmp_path, "the class 'b' has no training images; add some, or leave it out")
        lay(tmp_path, "val/a/1.png", "valid/a/1.png")
        refuse(tmp_path, "val/ and valid/ are both the val split")

    @pytest.mark.parametrize("kind", ["test", "val"])
    def test_images_to_measure_on_alone(self, tmp_path, kind):
        lay(tmp_path, f"{kind}/b_x/1.png", f"{kind}/a/1.png", f"{kind}/a/2.png", "notes.txt")
        splits = read_source(tmp_path, training=False)
        assert set(splits.present()) == {kind} and len(splits.train) == 0
        assert names(splits.present()[kind]) == [("a/1.png", "a"), ("a/2.png", "a"), ("b_x/1.png", "b_x")]
        assert splits.train.class_names == ("a", "b_x") and len(splits.whole()) == 3
        known = read_source(tmp_path, training=False, label_names=["c", "b x", "a"]).present()[kind]
        assert known.labels.tolist() == [2, 2, 1] and known.class_names == ("c", "b x", "a")
        refuse(tmp_path, "'b_x' is not among the 2 classes", training=False, label_names=["a", "c"])
        refuse(tmp_path, f"found {kind} images alone", label_names=["c", "b x", "a"])

    def test_val_decides_the_classes_where_train_is_missing(self, tmp_path):
        lay(tmp_path, "test/b/1.png", "val/a/1.png", "val/b/1.png")
        splits = read_source(tmp_path, training=False)
        assert splits.test.class_names == splits.val.class_names == ("a", "b")
        assert [path for path, _ in names(splits.val)] == ["a/1.png", "b/1.png"]
        assert list(splits.present()) == ["val", "test"] and len(splits.whole()) == 3
        message = refuse(tmp_path, "found val and test images alone; add a train split. They can be measured on")
        assert "itself" not in message
        lay(tmp_path, "test/c/1.png")
        refuse(tmp_path, "the class 'c' has no val images; add some, or leave it out", training=False)

    def test_a_folder_of_its_own_still_holds_classes(self, tmp_path):
        lay(tmp_path, "test/deep/1.png", "other/1.png")
        assert read_source(tmp_path, training=False).train.class_names == ("other", "test")
        refuse(lay(tmp_path / "one", "test/a/1.png"), "two class folders or more, found only a/", training=False)

    def test_an_unreadable_folder(self, tmp_path, monkeypatch):
        """The error is made here, for root may read everything."""
        lay(tmp_path, "a/1.png", "b/1.png")
        real = os.scandir

        def scandir(folder):
            if Path(folder).name == "a":
                raise PermissionError(13, "Permission denied")
            return real(folder)

        monkeypatch.setattr(os, "scandir", scandir)
        refuse(tmp_path, r"a cannot be read \(Permission denied\); check its permissions")


def write_csv(path: Path, rows: list[list[str]], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    return path


class TestTable:
    ROWS = (["a/1.png", "cat"], ["a/2.png", "dog"], ["b/3.png", "cat"])

    @pytest.mark.parametrize("image", ["path", "image", "file", "filename", "Path "])
    @pytest.mark.parametrize("label", ["label", "class", "target", "LABEL"])
    def test_header_names(self, tmp_path, image, label):
        lay(tmp_path, "a/1.png", "a/2.png", "b/3.png")
        table = read_source(write_csv(tmp_path / "t.csv", [["id", label, image], *([7, b, a] for a, b in self.ROWS)]))
        assert names(table.train) == [tuple(row) for row in self.ROWS]

    @pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".csv", ";"), (".csv", "\t"), (".tsv", "\t")])
    def test_delimiters_blank_lines_and_byte_order_mark(self, tmp_path, suffix, delimiter):
        lay(tmp_path, "a/1.png", "a/2.png", "b/3.png")
        rows = [["path", "label"], *self.ROWS, [], ["", ""]]
        path = write_csv(tmp_path / f"t{suffix}", rows, delimiter, "utf-8-sig")
        assert names(read_source(path).train) == [tuple(row) for row in self.ROWS]

    def test_split_column(self, tmp_path):
        lay(tmp_path, *(f"{i}.png" for i in range(5)))
        kinds = ["test", "train", "valid", "train", "TEST"]
        rows = [[f"{i}.png", "yx"[i % 2], kind] for i, kind in enumerate(kinds)]
        rows[3][1] = "y"
        splits = read_source(write_csv(tmp_path / "t.csv", [["file", "label", "split"], *rows]))
        assert names(splits.train) == [("1.png", "x"), ("3.png", "y")]
        assert names(splits.val) == [("2.png", "y")]
        assert names(splits.test) == [("0.png", "y"), ("4.png", "y")]

    def test_a_table_to_measure_on_alone(self, tmp_path):
        lay(tmp_path, *(f"{i}.png" for i in range(3)))
        rows = [["2.png", "y", "test"], ["0.png", "y", "val"], ["1.png", "x", "val"]]
        path = write_csv(tmp_path / "t.csv", [["file", "label", "split"], *rows])
        refuse(path, "t.csv: expected images to learn from, found val and test images alone")
        refuse(path, "t.csv, val: 'x' is not among the 1 classes", training=False, label_names=["y"])
        splits = read_source(path, training=False)
        assert splits.train.class_names == ("x", "y") and not len(splits.train)
        assert names(splits.val) == [("0.png", "y"), ("1.png", "x")] and names(splits.test) == [("2.png", "y")]
        write_csv(path, [["file", "label", "split"], *([a, b, "test"] for a, b, _ in rows)])
        assert len(read_source(path, training=False).test) == 3
        assert "itself" not in refuse(path, "found test images alone; add a train split. They")

    def test_integer_labels_with_names(self, tmp_path):
        lay(tmp_path, "1.png")
        path = write_csv(tmp_path / "t.csv", [["path", "label"], ["1.png", "1"], ["2.png", "0"]])
        assert read_source(path, label_names=["cat", "dog"]).train.labels.tolist() == [1, 0]
        assert read_source(path).train.class_names == ("0", "1")
        refuse(path, "integers 0 to 0 for the 1 class names, found 1", label_names=["cat"])

    @pytest.mark.parametrize("engine", ["strings", "integers"])
    def test_parquet(self, tmp_path, engine):
        lay(tmp_path, "a/1.png", "a/2.png", "b/3.png")
        labels = [7, 12, 7] if engine == "integers" else [row[1] for row in self.ROWS]
        frame = pd.DataFrame(
            {"image": [row[0] for row in self.ROWS], "label": labels, "split": ["train", "train", "test"]}
        )
        frame.to_parquet(tmp_path / "t.parquet")
        splits = read_source(tmp_path / "t.parquet")
        assert splits.train.class_names == (("7", "12") if engine == "integers" else ("cat", "dog"))
        assert splits.test.labels.tolist() == [0]

    def test_parquet_with_images_inside_as_hugging_face_writes_it(self, tmp_path):
        import pyarrow as pa
        from pyarrow import parquet

        cells = [{"bytes": PNG, "path": "x.png"}] * 2
        info = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
        table = pa.table({"image": cells, "label": [1, 0]}).replace_schema_metadata({"huggingface": json.dumps(info)})
        parquet.write_table(table, tmp_path / "t.parquet")
        train = read_source(tmp_path / "t.parquet").train
        assert train.images == (PNG, PNG) and train.class_names == ("cat", "dog") and train.labels.tolist() == [1, 0]

    def test_parquet_without_its_reader(self, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        (tmp_path / "t.parquet").write_bytes(b"PAR1")
        with pytest.raises(MissingExtraError, match=r"pip install 'daptune\[parquet\]'"):
            read_source(tmp_path / "t.parquet")

    def test_repeats(self, tmp_path, caplog):
        lay(tmp_path, "1.png", "2.png")
        rows = [["path", "label", "split"], ["1.png", "a", "train"], ["2.png", "b", "train"]]
        path = write_csv(tmp_path / "t.csv", [*rows, ["1.png", "a", "train"], ["2.png", "b", "test"]])
        assert len(read_source(path).train) == 2
        assert "1 repeated rows" in caplog.text and "1 images stand in more than one split" in caplog.text
        path = write_csv(tmp_path / "t.csv", [*rows, ["1.png", "b", "train"]])
        refuse(path, "row 3: 1.png is labelled 'b' here and 'a' in row 1")

    def test_bad_tables(self, tmp_path):
        path = tmp_path / "t.csv"
        refuse(
            write_csv(path, [["path", "kind"], ["1.png", "a"]]),
            "expected a column for images .* found path, kind",
        )
        refuse(write_csv(path, []), "t.csv is empty")
        refuse(write_csv(path, [["path", "label"]]), "expected rows below the header, found none")
        refuse(write_csv(path, [["path", "label"], ["1.png"]]), "row 1: expected 2 values .* found 1")
        refuse(write_csv(path, [["path", "label"], ["1.png", ""]]), "row 1: .* found a blank")
        refuse(
            write_csv(path, [["path", "label"], ["1.png", "a"], ["2.png", "b"]]),
            "none of its 2 images exists",
        )
        lay(tmp_path, "1.png", "2.png")
        refuse(
            write_csv(path, [["path", "label"], ["1.png", "a"], ["2.png", "a"]]),
            "at least 2 classes, found only 'a'",
        )
        rows = [["path", "label", "split"], ["1.png", "a", "trian"]]
        refuse(write_csv(path, rows), "row 1: expected the split train, val or test, found 'trian'")
        path.write_bytes("path,label\nñ.png,a".encode("latin-1"))
        refuse(path, "save it as CSV in UTF-8")
        (tmp_path / "t.parquet").write_bytes(b"no parquet")
        refuse(tmp_path / "t.parquet", "cannot be read as Parquet")
        refuse(lay(tmp_path, "data.zip") / "data.zip", "unpack archives")


def zhou(folder: Path, rows: dict | None = None, name: str = "split_zhou_Made.json") -> Path:
    rows = rows or {
        "train": [["b/2.png", 5, "B class"], ["a/1.png", 2, "A"], ["b/1.png", 5, "B class"]],
        "val": [["a/3.png", 2, "A"]],
        "test": [["b/4.png", 5, "B class"]],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(rows))
    return folder / name


class TestZhou:
    @pytest.mark.parametrize("below", ["", "images", "2750", "my pictures"])
    @pytest.mark.parametrize("whole_folder", [True, False])
    def test_order_stays_and_the_image_folder_is_found(self, tmp_path, below, whole_folder):
        path = zhou(tmp_path)
        lay(tmp_path / below, "a/1.png", "b/1.png", "b/2.png")
        splits = read_source(tmp_path if whole_folder else path)
        assert splits.train.root == tmp_path / below
        assert names(splits.train) == [("b/2.png", "B class"), ("a/1.png", "A"), ("b/1.png", "B class")]
        assert splits.train.class_names == ("A", "B class") and splits.train.labels.tolist() == [1, 0, 1]
        assert len(splits.val) == len(splits.test) == 1

    def test_image_root_may_be_given(self, tmp_path):
        path = zhou(tmp_path / "splits")
        lay(tmp_path / "elsewhere", "a/1.png")
        assert read_source(path, image_root=tmp_path / "elsewhere").train.root == tmp_path / "elsewhere"
        refuse(path, "first image b/2.png is not below .*splits and its sub-folders; put the file into the folder")
        refuse(path, "not below .*nowhere", image_root=tmp_path / "nowhere")

    def test_a_split_file_to_measure_on_alone(self, tmp_path):
        rows = {"train": [], "val": [["b/2.png", 5, "B"]], "test": [["a/1.png", 2, "A"], ["b/1.png", 5, "B"]]}
        path = zhou(tmp_path, rows)
        lay(tmp_path / "images", "a/1.png", "b/1.png", "b/2.png")
        refuse(path, "found val and test images alone")
        splits = read_source(path, training=False)
        assert splits.test.labels.tolist() == [0, 1] and splits.train.class_names == ("A", "B")
        assert splits.val.root == tmp_path / "images" and len(splits.whole()) == 3

    def test_bad_files(self, tmp_path):
        path = zhou(tmp_path, {"train": [["a", 0, "x"], ["b", 0, "y"]]})
        refuse(path, "label 0 is named both 'x' and 'y'")
        refuse(zhou(tmp_path, {"train": [["a", 0, "x_y"], ["b", 1, "x y"]]}), "make the same prompt")
        refuse(zhou(tmp_path, {"train": [["a", 0]]}), "a row of train differs")
        refuse(zhou(tmp_path, {"train": 7}), "a row of train differs")
        refuse(zhou(tmp_path, {"train": [], "test": []}), "its lists are empty")
        refuse(zhou(tmp_path, {"images": []}), "found no train list")
        path.write_text("{")
        refuse(path, "cannot be read")
        zhou(tmp_path, name="split_zhou_Other.json")
        refuse(tmp_path, "split_zhou_Made.json and split_zhou_Other.json; give the one to read")


class ClassLabel:
    def __init__(self, *names: str) -> None:
        self.names = list(names)


class Rows:
    """A data set as `datasets.Dataset` behaves, counting the images that it decodes."""

    def __init__(self, features: dict, **columns) -> None:
        self.features, self.column_names, self.columns, self.decoded = features, list(columns), columns, 0

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        if isinstance(key, str):
            self.decoded += len(self) if key == "image" else 0
            return self.columns[key]
        self.decoded += 1
        return {name: column[key] for name, column in self.columns.items()}


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(count)]


class TestDataset:
    def test_labels_are_read_without_decoding(self):
        rows = Rows({"image": object(), "label": ClassLabel("cat", "dog")}, image=pictures(3), label=[1, 0, 1])
        table = read_source(rows).train
        assert rows.decoded == 0
        assert table.class_names == ("cat", "dog") and table.labels.tolist() == [1, 0, 1]
        assert isinstance(table.images[2], DatasetItem) and decode(table.images[2]).getpixel((0, 0)) == (
            2,
            0,
            0,
        )

    def test_splits(self, caplog):
        def part(count: int, labels: list[int]) -> Rows:
            return Rows({"img": object(), "kind": ClassLabel("a", "b")}, img=pictures(count), kind=labels)

        source = {
            "train": part(2, [0, 1]),
            "validation": part(1, [1]),
            "test": part(2, [-1, -1]),
            "extra": part(1, [0]),
        }
        splits = read_source(source)
        assert splits.val.labels.tolist() == [1] and splits.test is None
        assert "'extra'" in caplog.text

    def test_a_data_set_to_measure_on_alone(self):
        rows = Rows({"label": ClassLabel("cat", "dog")}, image=pictures(3), label=[1, 0, 1])
        splits = read_source({"test": rows}, training=False, label_names=["dog", "cat"])
        assert splits.test.labels.tolist() == [0, 1, 0] and not len(splits.train)
        unlabelled = Rows({"label": ClassLabel("cat", "dog")}, image=pictures(1), label=[-1])
        both = {"train": unlabelled, "test": rows}
        assert read_source(both, training=False).test.labels.tolist() == [1, 0, 1]
        refuse(both, "found test images alone")

    def test_label_names_reorder_the_data_sets_own(self):
        rows = Rows({"label": ClassLabel("cat", "dog")}, image=pictures(2), label=[0, 1])
        assert read_source(rows, label_names=["dog", "wolf", "cat"]).train.labels.tolist() == [2, 0]

    def test_output_formats_are_undone(self):
        class Formatted(Rows):
            format = {"type": "torch"}  # noqa: RUF012

            def with_format(self, kind: None) -> Rows:
                return Rows({}, image=pictures(2), label=["b", "a"])

        assert read_source(Formatted({}, image=[None] * 2, label=[None] * 2)).train.labels.tolist() == [1, 0]

    def test_plain_columns_of_words_or_integers(self):
        words = Rows({}, image=pictures(2), label=["b", "a"])
        assert read_source(words).train.class_names == ("a", "b")
        numbers = Rows({}, image=pictures(3), label=np.array([10, 9, 10]))
        assert read_source(numbers).train.class_names == ("9", "10")

    def test_bad_data_sets(self):
        two = {"fine": ClassLabel("a", "b"), "coarse": ClassLabel("c", "d")}
        refuse(
            Rows(two, image=pictures(1), fine=[0], coarse=[0]),
            "one label column .* found image, fine, coarse",
        )
        refuse(Rows({}, text=["x"], label=["a"]), "one image column")
        refuse({"test": Rows({}, image=pictures(2), label=["a", "b"])}, "the source: .* found test images alone; add a")
        refuse({"extra": Rows({}, image=pictures(1), label=["a"])}, "a train, val or test split, found extra")
        refuse({}, "a train, val or test split, found none")
        refuse({"train": [1, 2]}, "data set with rows, columns and a length, found list")
        refuse(Rows({"label": ClassLabel("a", "b")}, image=pictures(1), label=[5]), "integers 0 to 1")
        refuse(Rows({"label": ClassLabel("a", "b")}, image=pictures(2), label=[-1, -1]), "no labels")
        refuse(42, "expected a folder, .* found int")


class TestLists:
    def test_paths_images_arrays_and_bytes(self, tmp_path):
        image, array = pictures(1)[0], np.zeros((4, 4, 3), np.uint8)
        table = read_source((["x/1.png", tmp_path / "2.png", image, array, PNG], list("babab"))).train
        assert table.class_names == ("a", "b") and table.labels.tolist() == [1, 0, 1, 0, 1]
        assert table.images == (Path("x/1.png"), tmp_path / "2.png", image, array, PNG)

    def test_an_array_of_images_with_an_array_of_labels(self):
        table = read_source((np.zeros((3, 4, 4, 3), np.uint8), np.array([4, 4, 2]))).train
        assert len(table) == 3 and table.class_names == ("2", "4") and table.labels.tolist() == [1, 1, 0]

    def test_bad_lists(self):
        refuse((["1.png"], ["a", "b"]), "one label an image, found 1 images and 2 labels")
        refuse(([], []), "found an empty list")
        refuse(("1.png", "a"), "expected a list of images, found one str")
        refuse((["1.png", 7], ["a", "b"]), "found int")
        refuse((["1.png", "2.png"], ["a", None]), "image 1 has no label, found None; give it one, or leave it out")
        refuse((["1.png", "2.png"], [0.5, 1.5]), "expected all class names or all integers, found 0.5")
        refuse((["1.png", "2.png"], ["a", " "]), "expected a class name, found ' '")
        refuse((["1.png", "1.png"], ["a", "b"]), "1.png is labelled both 'a' and 'b'")
        refuse((["1.png", "2.png"], [0, 2]), "integers 0 to 1 .* found 2", label_names=["a", "b"])

    def test_images_to_measure_on_have_the_places_of_known_classes(self, tmp_path):
        by_name = labelled(["1.png", "2.png", "3.png"], ["b", "c", "b"], ["c", "a", "b"])
        assert by_name.labels.tolist() == [2, 0, 2] and by_name.class_names == ("c", "a", "b")
        by_number = labelled(["1.png", "2.png", "3.png"], [7, 4, 7], ["x", "y"], [4, 7])
        assert by_number.labels.tolist() == [1, 0, 1] and by_number.class_names == ("x", "y")
        with pytest.raises(DataError, match="label 5 is not among the 2 classes"):
            labelled(["1.png"], [5], ["x", "y"], [4, 7])
        root = lay(tmp_path, "train/a/1.png", "train/b/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png")
        assert names(labelled(root, None, ["b", "a"])) == [("a/3.png", "a"), ("b/4.png", "b")]
        whole = labelled(root / "train", None, ["b", "a"])
        assert sorted(names(whole)) == [("a/1.png", "a"), ("b/1.png", "b"), ("b/2.png", "b")]


class TestFingerprint:
    def test_it_follows_paths_and_labels_and_not_the_place(self, tmp_path):
        one, two = (read_source(lay(tmp_path / place, "a/1.png", "b/2.png")).train for place in ("x", "y/z"))
        assert one.fingerprint() == two.fingerprint() == one.subset([0, 1]).fingerprint()
        changes = [
            one.subset([1, 0]),
            one.subset([0]),
            ImageTable(one.images, 1 - one.labels, one.class_names, one.root),
        ]
        assert len({one.fingerprint(), *(change.fingerprint() for change in changes)}) == 4

    def test_it_never_changes(self):
        table = ImageTable((Path("r/ä/1.png"), b"bytes"), np.array([0, 1]), ("ä", "b"), Path("r"))
        rows = f"ä/1.png\0{0}\0ä\n{hashlib.sha256(b'bytes').hexdigest()}\0{1}\0b\n"
        assert table.fingerprint() == hashlib.sha256(rows.encode()).hexdigest()

    def test_it_follows_content_in_memory(self):
        labels = np.array([0])
        found = {
            ImageTable((image,), labels, ("a",)).fingerprint()
            for image in (*pictures(2), np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8), b"x", b"y")
        }
        assert len(found) == 6


def test_tables_refuse_what_does_not_fit():
    images = (b"1", b"2")
    with pytest.raises(DataError, match="found 2 images and 1 labels"):
        ImageTable(images, np.array([0]), ("a",))
    with pytest.raises(DataError, match="labels 0 to 0 for 1 class names, found 3"):
        ImageTable(images, np.array([0, 3]), ("a",))
    both = ImageTable(images, np.array([0, 0]), ("a",)) + ImageTable(images, np.array([0, 0]), ("a",))
    assert len(both) == 4
    with pytest.raises(DataError, match="two tables of the same classes"):
        both + ImageTable(images, np.array([0, 0]), ("b",))


def test_nothing_is_logged_for_a_clean_folder(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "daptune")
    read_source(lay(tmp_path, "a/1.png", "b/1.png"))
    assert not caplog.records
